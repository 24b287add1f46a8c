//! The order of a build: which steps there are, what each stands on, and how they become one image.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::cache::{Cache, Work};
use crate::error::{ImageError, at};
use crate::image::{FileInfo, Files, Image, Manifest};
use crate::key::{Key, KeyBuilder};
use crate::limits::MANIFEST_BYTES;
use crate::linux::read_limited;
use crate::progress::{Cancel, Progress, Step};
use crate::recipe::Recipe;
use crate::root::{Format, Trees};
use crate::suite::Suite;
use crate::tree::{self, Entry};
use crate::{bytecode, debian, initramfs, linux, packages, root};

/// Builds images, with a cache of every step. Several builders may share a cache folder.
#[derive(Debug, Clone)]
pub struct Builder {
    cache: PathBuf,
}

/// All keys of one recipe's build.
struct Plan {
    suite: Suite,
    format: Format,
    added: Vec<Entry>,
    debian: Key,
    library_bytecode: Key,
    packages: Key,
    packages_bytecode: Key,
    linux: Key,
    initramfs: Key,
    root: Key,
    image: Key,
}

impl Builder {
    /// Makes a builder that keeps its steps in `cache_dir`, which is made when it is first used.
    #[must_use]
    pub fn new(cache_dir: PathBuf) -> Self {
        Self { cache: cache_dir }
    }

    /// Returns the recipe's image if it was built before, without building anything.
    ///
    /// # Errors
    ///
    /// [`ImageError`] when the recipe's files cannot be read or the image is damaged.
    pub fn find(&self, recipe: &Recipe) -> Result<Option<Image>, ImageError> {
        if !self.cache.is_dir() {
            return Ok(None);
        }
        let plan = Plan::new(recipe)?;
        let found = Cache::open(&self.cache)?.find("image", plan.image);
        found.map(|folder| Image::open(&folder)).transpose()
    }

    /// Builds the recipe's image, or returns the one that is there. What was done is kept when a later step fails or
    /// the build is cancelled, and nothing half done is ever seen by another build.
    ///
    /// # Errors
    ///
    /// [`ImageError::Cancelled`] when told to stop; else what failed, with the end of the failing tool's output.
    pub fn build(
        &self,
        recipe: &Recipe,
        progress: &mut dyn Progress,
        cancel: &Cancel,
    ) -> Result<Image, ImageError> {
        let cache = Cache::open(&self.cache)?;
        let plan = Plan::new(recipe)?;
        let mut run = Run {
            cache: &cache,
            progress,
            cancel,
        };
        if let Some(folder) = cache.find("image", plan.image) {
            run.step("image", "all there", None, plan.image, |_| Ok(()))?;
            return Image::open(&folder);
        }
        let debian = run.debian(recipe, &plan)?;
        let packages = run.packages(recipe, &plan)?;
        let trees = run.bytecode(&plan, &debian, &packages)?;
        let linux = run.step(
            "linux",
            "Linux and its modules",
            Some(4),
            plan.linux,
            |work| linux::make(recipe, plan.suite, work),
        )?;
        let initramfs = run.step(
            "initramfs",
            "agent, modules, runner",
            None,
            plan.initramfs,
            |work| initramfs::make(&linux.join("modules"), plan.format, work),
        )?;
        let root = run.step("root", "the root file system", Some(2), plan.root, |work| {
            root::make(&trees.folders, recipe, &plan.added, plan.format, work)
        })?;
        let folder = run.step(
            "image",
            "putting it together",
            Some(3),
            plan.image,
            |work| {
                let files = place(
                    work,
                    [
                        ("vmlinux", linux.join("vmlinux")),
                        ("initramfs.cpio", initramfs.join("initramfs.cpio")),
                        ("root.img", root.join("root.img")),
                    ],
                )?;
                let lists = (
                    read_json(&debian.join("packages.json"))?,
                    read_json(&packages.join("packages.json"))?,
                );
                let linux = read_json(&linux.join("linux.json"))?;
                let manifest = Manifest::new(
                    plan.image.to_hex(),
                    recipe.clone(),
                    linux,
                    plan.format,
                    lists,
                    files,
                );
                let path = work.staging.join("manifest.json");
                let json = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::from);
                json.and_then(|json| std::fs::write(&path, json))
                    .map_err(at("writing", &path))
            },
        )?;
        Image::open(&folder)
    }
}

impl Plan {
    fn new(recipe: &Recipe) -> Result<Self, ImageError> {
        let suite = Suite::named(&recipe.suite).ok_or_else(|| {
            ImageError::unusable(
                format!("planning the image `{}`", recipe.name),
                format!("no suite `{}`", recipe.suite),
            )
        })?;
        let format = Format::of_host()?;
        let added = tree::added(&recipe.files)?;
        let debian = debian::key(recipe);
        let packages = packages::key(recipe, suite);
        let library_bytecode = bytecode::key(debian, debian);
        let packages_bytecode = bytecode::key(debian, packages);
        let linux = linux::key(recipe);
        let initramfs = initramfs::key(linux, format);
        let root = root::key(
            &[debian, library_bytecode, packages, packages_bytecode],
            recipe,
            &added,
            format,
        )?;
        let json = serde_json::to_string(recipe)
            .map_err(|error| ImageError::unusable("writing the recipe down", error.to_string()))?;
        let image = KeyBuilder::new("image", 1)
            .text("recipe", &json)
            .key("linux", linux)
            .key("initramfs", initramfs)
            .key("root", root)
            .finish();
        Ok(Self {
            suite,
            format,
            added,
            debian,
            library_bytecode,
            packages,
            packages_bytecode,
            linux,
            initramfs,
            root,
            image,
        })
    }
}

struct Run<'a> {
    cache: &'a Cache,
    progress: &'a mut dyn Progress,
    cancel: &'a Cancel,
}

impl Run<'_> {
    fn step(
        &mut self,
        name: &'static str,
        detail: &str,
        total: Option<u64>,
        key: Key,
        work: impl FnOnce(&mut Work<'_>) -> Result<(), ImageError>,
    ) -> Result<PathBuf, ImageError> {
        if self.cancel.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        let step = Step {
            name,
            detail: detail.to_owned(),
            total,
        };
        self.cache
            .step(&step, key, self.progress, self.cancel, work)
    }

    fn debian(&mut self, recipe: &Recipe, plan: &Plan) -> Result<PathBuf, ImageError> {
        let detail = format!("{} with {}", recipe.suite, recipe.debian.join(", "));
        self.step(
            "debian",
            &detail,
            Some(debian::TOTAL),
            plan.debian,
            |work| debian::make(recipe, plan.suite, work),
        )
    }

    fn packages(&mut self, recipe: &Recipe, plan: &Plan) -> Result<PathBuf, ImageError> {
        let count = recipe.python.len();
        let total = (count > 0).then_some(count as u64);
        self.step(
            "python-packages",
            &format!("{count} named"),
            total,
            plan.packages,
            |work| packages::make(recipe, plan.suite, work),
        )
    }

    /// Compiles the library and the packages apart: other packages leave the library's part as it is.
    fn bytecode(
        &mut self,
        plan: &Plan,
        debian: &Path,
        packages: &Path,
    ) -> Result<Trees, ImageError> {
        let (tree, packages) = (debian.join("tree"), packages.join("tree"));
        let library = [
            format!("usr/lib/python3.{}", plan.suite.python_minor),
            "usr/lib/python3/dist-packages".to_owned(),
        ];
        let library = self.step(
            "bytecode",
            "the standard library",
            None,
            plan.library_bytecode,
            |work| bytecode::make(plan.suite, &tree, &tree, &library, work),
        )?;
        let place = [plan.suite.packages_dir()];
        let compiled = self.step(
            "bytecode",
            "the Python packages",
            None,
            plan.packages_bytecode,
            |work| bytecode::make(plan.suite, &tree, &packages, &place, work),
        )?;
        Ok(Trees {
            folders: vec![tree, library.join("tree"), packages, compiled.join("tree")],
        })
    }
}

/// Links the files of the steps into the image's folder, so that it lives on when the steps are removed.
fn place(work: &mut Work<'_>, files: [(&str, PathBuf); 3]) -> Result<Files, ImageError> {
    let mut placed = Vec::new();
    for (number, (name, from)) in (1..).zip(files) {
        work.checkpoint()?;
        let to = work.staging.join(name);
        std::fs::hard_link(&from, &to).map_err(at("linking", &to))?;
        placed.push(FileInfo {
            name: name.to_owned(),
            bytes: std::fs::metadata(&to).map_err(at("reading", &to))?.len(),
            blake3: tree::hash_file(&to)?,
        });
        work.progress.advanced(number, name);
    }
    let [vmlinux, initramfs, root] = <[FileInfo; 3]>::try_from(placed).expect("three went in");
    Ok(Files {
        vmlinux,
        initramfs,
        root,
    })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ImageError> {
    let bytes = read_limited(path, MANIFEST_BYTES)?;
    serde_json::from_slice(&bytes)
        .map_err(std::io::Error::from)
        .map_err(at("reading", path))
}
