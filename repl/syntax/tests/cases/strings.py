# binds: a b c d e
# deletes: x
"x = 1"
'''
y = 1
'''
f"{z!r} {{w = 1}} {a_ == 1} {v:=5}"
f"{(a := 1)}" "plain" f'''{
    (b := 2)
}'''
rf"\{(c := 1)}"
b"q = 1"
x = \
    1 if (d := 1) else 2
del x
e = "\N{LATIN SMALL LETTER E}" f"\N{DIGIT ONE}{1}"
