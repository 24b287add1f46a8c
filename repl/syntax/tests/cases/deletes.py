# binds: again f n loop
# deletes: a b c d e inside
a = 1
del a
del b, (c, [d]), x.y, z[0]
del (e)
again = 1
del again
again = 2
def f():
    global g
    del g
del x[(n := 1)]
for loop in y:
    inside = 1
    del inside
