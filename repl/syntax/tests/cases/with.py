# binds: a b c d e f g yield_
with x as a, y as (b, [c]): d = 1
with (x as e, y as x.z): pass
with (x, y): pass
with (x): pass
with (x) as f, open(y): pass
with (yield_ := x): g = 1
