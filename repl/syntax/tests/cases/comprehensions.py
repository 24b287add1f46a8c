# binds: a b c d e f
a = [x for x in y]
{i: j for i, j in k}
(m for n in o for m in n)
[b := p for p in q]
[[c := r for r in s] for s in t]
{u for u in [0] if (d := u)}
sum((e := v) for v in range(3))
[lambda z=(f := 1): z for z in ()]
