//! `vmrepl doctor --copies`: two forks of one machine, hazard by hazard.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};
use vmrepl_session::{Hazard, TemplateName, Wanted, copies as compare};

use crate::args::{EngineArg, RngArg};
use crate::out;
use crate::places::Environment;

/// Exit code 0 when all is as it should be, else 1.
pub(crate) fn copies(
    template: &str,
    engine: EngineArg,
    rng: RngArg,
    as_json: bool,
    environment: &Environment,
) -> Result<ExitCode> {
    let template = TemplateName::new(template)?;
    let hazards = compare(&environment.places, &template, engine.into(), rng.into())?;
    let all_hold = hazards.iter().all(|hazard| hazard.holds);
    if as_json {
        let rows: Vec<Value> = hazards.iter().map(hazard_json).collect();
        out::line(&serde_json::to_string(
            &json!({"holds": all_hold, "hazards": rows}),
        )?)?;
    } else {
        for hazard in &hazards {
            let mark = if hazard.holds { "ok  " } else { "FAIL" };
            let line = format!(
                "{mark}  {:<34} {:<28} {}, {}",
                hazard.name,
                wanted(hazard.wanted),
                hazard.told[0],
                hazard.told[1]
            );
            out::line(&out::harmless(&line))?;
        }
    }
    Ok(if all_hold {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn wanted(wanted: Wanted) -> &'static str {
    match wanted {
        Wanted::Other => "each copy its own",
        Wanted::Same => "goes on as it was seeded",
        Wanted::Shared => "the same, nothing is done",
        Wanted::True => "as on the host",
    }
}

fn hazard_json(hazard: &Hazard) -> Value {
    json!({"name": hazard.name, "wanted": wanted(hazard.wanted), "holds": hazard.holds, "told": hazard.told})
}
