# binds: a b c d e
a = await x
[b := y async for y in z]
async for c in x: pass
async with x as d: pass
e = [await y for y in z]
