//! Programs in many languages: what the toolchains of the recipe `polyglot` want.

#[expect(dead_code, reason = "port 52000 is not served yet")]
mod table;
