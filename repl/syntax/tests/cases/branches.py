# binds: a b c d e f g h
if x: a = 1
elif y: b = 1
else: c = 1
for _i.x in y: d = 1
else: e = 1
while x:
    f = 1
else:
    g = 1
if x:
    if y:
        if z: h = 1
