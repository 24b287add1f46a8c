//! `vmrepl prepare`: a recipe becomes a template, with progress.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crossbeam_channel::{bounded, select};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vmrepl_image::{Builder, Cancel, Image, Progress, Recipe, Step};
use vmrepl_session::{
    BuiltImage, Language, Limits, Places, PrepareStep, TemplateName, Wish, can_prepare,
    prepare as freeze,
};

use crate::args::{EngineArg, PrepareArgs};
use crate::failure::UsageError;
use crate::out;
use crate::places::Environment;
use crate::signals::Signals;

/// Words of the command line that the image wants.
const COMMAND_LINE: &str = "";

/// Prepares a template.
pub(crate) fn prepare(args: &PrepareArgs, environment: &Environment) -> Result<ExitCode> {
    let began = Instant::now();
    let signals = Signals::install()?;
    can_prepare(&environment.places, args.engine.into())?;
    let with: Vec<&str> = args.with.iter().map(String::as_str).collect();
    let mut recipe = Recipe::load(&args.recipe)?;
    let mut limits = Limits::default();
    for wish in &recipe.limits {
        limits.set(wish).map_err(|error| UsageError {
            message: format!("recipe {}: limits: {error}", args.recipe),
        })?;
    }
    if !with.is_empty() {
        recipe = recipe.with_python(&with)?;
    }
    let name = TemplateName::new(args.name.as_deref().unwrap_or(&recipe.name))?;
    let mut shown = Shown::new(args.quiet);
    let image = build(&recipe, environment, &mut shown, &signals)?;
    let built = plain(&image);
    // The builder tells where things truly lie, behind links.
    let images = &environment.places.images;
    let places = Places {
        images: images
            .canonicalize()
            .with_context(|| format!("could not open {}", images.display()))?,
        ..environment.places.clone()
    };
    let mut step = |step: PrepareStep| shown.prepare_step(&step);
    let wish = Wish {
        name: &name,
        image: &built,
        engine: args.engine.into(),
        force: args.force,
    };
    let done = freeze(&places, &wish, &mut step, &signals.stop())?;
    shown.end();
    let took = if done.cached {
        "it was there already".to_owned()
    } else {
        format!("{:.0} s", began.elapsed().as_secs_f64())
    };
    out::line(&format!(
        "template {} is ready for {} ({}; {took})",
        done.name, done.engine, done.id
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Prepares what a run asked for, with the defaults.
pub(crate) fn prepare_default(
    recipe: &str,
    engine: EngineArg,
    environment: &Environment,
) -> Result<ExitCode> {
    let args = PrepareArgs {
        recipe: recipe.to_owned(),
        with: Vec::new(),
        name: None,
        force: false,
        quiet: false,
        engine,
    };
    prepare(&args, environment)
}

fn build(
    recipe: &Recipe,
    environment: &Environment,
    shown: &mut Shown,
    signals: &Signals,
) -> Result<Image> {
    let cancel = Cancel::new();
    let watched = cancel.clone();
    let heard = signals.heard();
    let (done, ended) = bounded::<()>(0);
    let watcher = std::thread::spawn(move || {
        select! {
            recv(heard) -> _ => watched.cancel(),
            recv(ended) -> _ => {}
        }
    });
    let image = Builder::new(environment.places.images.clone()).build(recipe, shown, &cancel);
    drop(done);
    drop(watcher.join());
    Ok(image?)
}

fn plain(image: &Image) -> BuiltImage {
    let manifest = &image.manifest;
    let named = |p: &vmrepl_image::Package| format!("{} {}", p.name, p.version);
    BuiltImage {
        recipe: image.recipe_name.clone(),
        digest: image.digest.clone(),
        vmlinux: image.vmlinux.clone(),
        initramfs: image.initramfs.clone(),
        root: image.root.clone(),
        root_blake3: manifest.files.root.blake3.clone(),
        command_line: COMMAND_LINE.to_owned(),
        memory_bytes: image.memory_bytes,
        vcpus: image.vcpus,
        language: image.language.parse().unwrap_or(Language::Python),
        warm: image.warm.clone(),
        limits: image.limits.clone(),
        linux: image.linux_version.clone(),
        packages: manifest
            .python
            .iter()
            .chain(&manifest.debian)
            .map(named)
            .collect(),
    }
}

/// Progress on stderr: a bar on a terminal, a line a step elsewhere, nothing when quiet.
struct Shown {
    bar: ProgressBar,
    lines: bool,
    quiet: bool,
    step: String,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let target = if terminal && !quiet {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(spinner());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            bar,
            lines: !terminal && !quiet,
            quiet,
            step: String::new(),
        }
    }

    fn begin(&mut self, step: String, total: Option<u64>) {
        if self.lines {
            out::note(&step);
        }
        self.bar.reset();
        match total {
            Some(total) => {
                self.bar.set_length(total);
                self.bar.set_style(bar());
            }
            None => self.bar.set_style(spinner()),
        }
        self.bar.set_message(step.clone());
        self.step = step;
    }

    fn prepare_step(&mut self, step: &PrepareStep) {
        let text = match step {
            PrepareStep::Emulate { why } => {
                return self.tell(&format!(
                    "KVM does not run a guest here ({why}); the template is made for emulation"
                ));
            }
            PrepareStep::Boot { engine } => {
                format!("boot: Linux and the interpreter come up on {engine}")
            }
            PrepareStep::Warm { number, count } => format!("warm: cell {number} of {count}"),
            PrepareStep::Freeze => "freeze: pausing and saving the machine".to_owned(),
            PrepareStep::Publish => "publish: checksums, sync, rename".to_owned(),
        };
        self.begin(text, None);
    }

    /// A line that stays.
    fn tell(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| out::note(text));
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.end();
    }
}

impl Progress for Shown {
    fn started(&mut self, step: &Step) {
        self.begin(format!("{}: {}", step.name, step.detail), step.total);
    }

    fn advanced(&mut self, done: u64, note: &str) {
        self.bar.set_position(done);
        self.bar.set_message(format!("{}: {note}", self.step));
    }

    fn finished(&mut self, cached: bool, took: Duration) {
        if self.lines && !cached {
            out::note(&format!("    {:.1} s", took.as_secs_f64()));
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn bar() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {elapsed:>4} {bar:20} {pos}/{len} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
