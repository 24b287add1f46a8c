# binds: a b c d e f g h i k m n p q r s
(a := 1)
print(b := 2, key=(c := 3))
x[(d := 1):(e := 2)]
f"{(f := 1)} {(g := 2)!r:>{(h := 3)}}"
assert (i := 1), (k := 2)
while (m := 0):
    pass
if (n := 1): pass
elif (p := 2): pass
lambda left=(q := 1): (hidden := 2)
[y for z in (0,) if (r := z)]
{(s := w): w for w in []}
