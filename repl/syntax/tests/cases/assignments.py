# binds: a b c d e f g h i j k m n
a = b = 1
c, (d, [e, *f]) = a, (b, [1, 2, 3])
[g, a.attribute, a[0]] = 1, 2, 3
h: int
i: int = 2
(j): int = 3
a.x: int = 4
a[1]: int = 5
k += 1
a.y += 1
(m), = [1]
for n in a: pass
