//! `vmrepl templates` and `vmrepl verify`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use vmrepl_session::{
    Template, TemplateName, export_template, import_template, remove_template, verify_template,
};

use crate::args::TemplateAction;
use crate::out;
use crate::places::Environment;

/// Lists or changes the templates.
pub(crate) fn templates(
    action: Option<&TemplateAction>,
    as_json: bool,
    environment: &Environment,
) -> Result<ExitCode> {
    let places = &environment.places;
    match action {
        None => return list(as_json, environment),
        Some(TemplateAction::Rm { name }) => {
            remove_template(places, &TemplateName::new(name)?)?;
            out::line(&format!("template {name} is gone"))?;
        }
        Some(TemplateAction::Export { name, file }) => {
            export_template(places, &TemplateName::new(name)?, file)?;
            let bytes = file.metadata().map_or(0, |facts| facts.len());
            out::line(&format!(
                "{} holds template {name} ({} MB)",
                file.display(),
                bytes / 1_000_000
            ))?;
        }
        Some(TemplateAction::Import { file, name }) => {
            out::note(
                "warning: an imported template runs what whoever made it has put into it; import only what you trust",
            );
            let name = name.as_deref().map(TemplateName::new).transpose()?;
            let name = import_template(places, file, name)?;
            out::line(&format!("template {name} is ready"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(as_json: bool, environment: &Environment) -> Result<ExitCode> {
    let all = Template::all(&environment.places)?;
    if as_json {
        let entries: Vec<_> = all
            .iter()
            .map(|(name, template)| match template {
                Ok(t) => json!({"name": name, "id": t.id().to_string(), "recipe": t.record.recipe, "engine": t.compat(),
                    "memory_bytes": t.memory_bytes(), "disk_bytes": t.disk_bytes(), "linux": t.record.linux,
                    "created_s": t.record.created_s, "packages": t.record.packages}),
                Err(error) => json!({"name": name, "error": out::chain(error)}),
            })
            .collect();
        out::line(&serde_json::to_string(&entries)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if all.is_empty() {
        out::note("no templates yet; make one: vmrepl prepare");
        return Ok(ExitCode::SUCCESS);
    }
    out::line(&format!(
        "{:<20} {:<20} {:>8} {:>8}  {}",
        "NAME", "ENGINE", "MEMORY", "DISK", "LINUX"
    ))?;
    for (name, template) in &all {
        match template {
            Ok(t) => out::line(&format!(
                "{name:<20} {:<20} {:>5} MB {:>5} MB  {}",
                t.compat(),
                t.memory_bytes() >> 20,
                t.disk_bytes() / 1_000_000,
                t.record.linux
            ))?,
            Err(error) => out::line(&format!("{name:<20} damaged: {}", out::chain(error)))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks one template, or all, byte by byte.
pub(crate) fn verify(only: Option<&str>, environment: &Environment) -> Result<ExitCode> {
    let names = match only {
        Some(name) => vec![name.to_owned()],
        None => Template::all(&environment.places)?
            .into_iter()
            .map(|(name, _)| name)
            .collect(),
    };
    let mut sound = true;
    for name in names {
        let report = verify_template(&environment.places, &TemplateName::new(&name)?)?;
        if report.damage.is_empty() {
            out::line(&format!(
                "{name}: sound ({} MB checked)",
                report.checked_bytes / 1_000_000
            ))?;
        }
        for damage in &report.damage {
            sound = false;
            out::line(&format!("{name}: {damage}"))?;
        }
    }
    if !sound {
        out::hint("make it anew: vmrepl prepare --force NAME");
    }
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(125)
    })
}

/// Whether a path names a recipe file rather than a built-in recipe.
pub(crate) fn is_recipe(name: &str) -> bool {
    vmrepl_image::BUILTIN
        .iter()
        .any(|(built_in, _)| *built_in == name)
        || Path::new(name).is_file()
}
