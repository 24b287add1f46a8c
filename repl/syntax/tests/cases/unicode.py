# binds: C VIII a d ffi ffn fi fl g Å é éa
# deletes: e
é = 1
ﬁ = 2
ª = 3
Å = 4
def ﬀn(): global ﬃ; ﬃ = 1
import ﬂ.x
import y as ᵍ
class 𝓒: pass
for éa in (): pass
try: pass
except E as Ⅷ: pass
𝔡 = 𝔢 = 1
del 𝔢
