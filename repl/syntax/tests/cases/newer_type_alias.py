# binds: X Y f C g type
type X = int
type Y[T] = list[T]
type = 1
def f[T: (int, str)](a: T) -> T: inside = 1
class C[T]: inside = 1
g = f"{'a' + f"{1}"}" f"{
    'x'  # comment
}"
