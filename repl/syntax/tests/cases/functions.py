# binds: a b c d e f g h outer inner
@(a := staticmethod)
def outer(p, /, q: (b := int) = (c := 1), *r: (d := int), s=(e := 2), **t) -> (f := int):
    hidden = 1
    import nothing
    for nothing in p: pass
    def inside(): pass
    class Inside: pass
    global inner, later
    def inner(): later_too = 1
    (lambda: (hidden := 1))
    print(later)


async def g():
    async for x in y: pass
    async with x as z: pass
    await z
    yield (h_inside := 1)


async def h(): pass
