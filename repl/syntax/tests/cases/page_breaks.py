# binds: a b c d
a = 1

if a:
    b = 2

def c():
    pass
d = """x
y"""
