//! Builds an image and tells what it did: `build_image CACHE_DIR [RECIPE [EXTRA_PYTHON_PACKAGE...]]`.

use std::io::{self, Write};
use std::time::Duration;

use vmrepl_image::{Builder, Cancel, Progress, Recipe, Step};

struct Lines;

impl Progress for Lines {
    fn started(&mut self, step: &Step) {
        drop(writeln!(io::stderr(), "{}: {}", step.name, step.detail));
    }

    fn advanced(&mut self, done: u64, note: &str) {
        drop(writeln!(io::stderr(), "    {done} {note}"));
    }

    fn finished(&mut self, cached: bool, took: Duration) {
        drop(writeln!(
            io::stderr(),
            "    cached {cached}, {} ms",
            took.as_millis()
        ));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let cache = arguments.first().ok_or("name a cache folder")?;
    let recipe = Recipe::load(arguments.get(1).map_or("base", String::as_str))?;
    let extra: Vec<&str> = arguments.iter().skip(2).map(String::as_str).collect();
    let recipe = recipe.with_python(&extra)?;
    let image = Builder::new(cache.into()).build(&recipe, &mut Lines, &Cancel::new())?;
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&image)?)?;
    Ok(())
}
