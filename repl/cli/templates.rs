//! `vmrepl templates` and `vmrepl verify`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use vmrepl_session::{
    EngineChoice, EngineKind, Found, Places, Template, TemplateName, engine_for, export_template,
    import_template, remove_template, template_engines, verify_template,
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
        Some(TemplateAction::Rm { name, engine }) => {
            let name = TemplateName::new(name)?;
            let engines = match engine {
                Some(one) => vec![EngineKind::from(*one)],
                None => template_engines(places, &name)?,
            };
            for engine in engines {
                remove_template(places, &name, engine)?;
                out::line(&format!("template {name} for {engine} is gone"))?;
            }
        }
        Some(TemplateAction::Export { name, file, engine }) => {
            let name = TemplateName::new(name)?;
            let engine = match engine {
                Some(one) => EngineKind::from(*one),
                None => engine_to_export(places, &name)?,
            };
            export_template(places, &name, engine, file)?;
            let bytes = file.metadata().map_or(0, |facts| facts.len());
            out::line(&format!(
                "{} holds template {name} for {engine} ({} MB)",
                file.display(),
                bytes / 1_000_000
            ))?;
        }
        Some(TemplateAction::Import { file, name }) => {
            out::note(
                "warning: an imported template runs what whoever made it has put into it; import only what you trust",
            );
            let name = name.as_deref().map(TemplateName::new).transpose()?;
            let (name, engine) = import_template(places, file, name)?;
            out::line(&format!("template {name} is ready for {engine}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The only one, or the one that a run would take.
fn engine_to_export(places: &Places, name: &TemplateName) -> Result<EngineKind> {
    match template_engines(places, name)?.as_slice() {
        [one] => Ok(*one),
        _ => Ok(EngineKind::of(&engine_for(
            places,
            EngineChoice::Auto,
            name,
        )?)),
    }
}

fn list(as_json: bool, environment: &Environment) -> Result<ExitCode> {
    let all = Template::all(&environment.places)?;
    if as_json {
        let entries: Vec<_> = all
            .iter()
            .map(|Found { name, engine, template }| match template {
                Ok(t) => json!({"name": name, "id": t.id().to_string(), "recipe": t.record.recipe, "engine": t.compat(),
                    "memory_bytes": t.memory_bytes(), "disk_bytes": t.disk_bytes(), "linux": t.record.linux,
                    "created_s": t.record.created_s, "packages": t.record.packages}),
                Err(error) => json!({"name": name, "engine": engine.name(), "error": out::chain(error)}),
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
    for found in &all {
        let (name, engine) = (&found.name, found.engine);
        match &found.template {
            Ok(t) => out::line(&format!(
                "{name:<20} {:<20} {:>5} MB {:>5} MB  {}",
                t.compat(),
                t.memory_bytes() >> 20,
                t.disk_bytes() / 1_000_000,
                t.record.linux
            ))?,
            Err(error) => out::line(&format!(
                "{name:<20} {:<20} damaged: {}",
                engine.name(),
                out::chain(error)
            ))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks one template, or all, byte by byte.
pub(crate) fn verify(only: Option<&str>, environment: &Environment) -> Result<ExitCode> {
    let places = &environment.places;
    let all = match only {
        Some(name) => {
            let name = TemplateName::new(name)?;
            let engines = template_engines(places, &name)?;
            engines
                .into_iter()
                .map(|engine| (name.clone(), engine))
                .collect()
        }
        None => Template::all(places)?
            .into_iter()
            .map(|found| Ok((TemplateName::new(&found.name)?, found.engine)))
            .collect::<Result<Vec<_>>>()?,
    };
    let mut sound = true;
    for (name, engine) in all {
        let report = verify_template(places, &name, engine)?;
        if report.damage.is_empty() {
            out::line(&format!(
                "{name} for {engine}: sound ({} MB checked)",
                report.checked_bytes / 1_000_000
            ))?;
        }
        for damage in &report.damage {
            sound = false;
            out::line(&format!("{name} for {engine}: {damage}"))?;
        }
    }
    if !sound {
        out::hint("make it anew: vmrepl prepare --force NAME --engine ENGINE");
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
