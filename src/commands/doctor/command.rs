//! The command: loads the configuration, diagnoses one provider after the other, returns the exit
//! status.

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use super::{
    plan::{self, Plan},
    show::Show,
    walk::walk,
};
use crate::{
    commands::{
        EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK, EXIT_USAGE,
        command_line::{command_line, service_hint},
        forbid_core_dumps,
    },
    config::{self, Config, Environment, Keys},
    probe::NetworkStack,
};

/// The arguments of the command.
#[derive(Clone, Copy, Debug)]
pub struct Doctor<'a> {
    /// Path to the configuration file.
    pub path: &'a Path,
    /// Whether to print one JSON object per provider instead of the lines.
    pub json: bool,
    /// Whether to send completions, which consume tokens.
    pub generate: bool,
    /// Names of providers; all if empty.
    pub providers: &'a [String],
    /// Whether to colour the lines.
    pub colour: bool,
}

/// Runs the command. Results go to `out`, everything else to `err`. Returns the exit status.
pub fn doctor(
    request: &Doctor<'_>,
    environment: &Environment<'_>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    // Before any key is in memory.
    forbid_core_dumps(err);
    // A key that cannot be read concerns one provider; the others are diagnosed nevertheless.
    let keys = match request.providers {
        [] => Keys::Reported,
        named => Keys::ReportedOf(named),
    };
    let loaded = match config::load(request.path, keys, environment) {
        Ok(loaded) => loaded,
        Err(problems) => {
            writeln!(err, "{problems}")?;
            return Ok(EXIT_CONFIGURATION);
        }
    };
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    let flags = [(request.json, "--json"), (request.generate, "--generate")];
    let command = command_line("doctor", request.path, &flags, request.providers);
    write!(err, "{}", service_hint(&loaded.unread, environment, &command))?;
    if let Some(status) = print_refusal(request, &loaded.config, err)? {
        return Ok(status);
    }
    let plans =
        match plan::plans(loaded.config, request.generate, request.providers, &Arc::new(NetworkStack::new()))
        {
            Ok(plans) => plans,
            Err(error) => {
                writeln!(err, "{error}")?;
                return Ok(EXIT_FAILED);
            }
        };
    let completions: usize = plans.iter().map(Plan::completions).sum();
    if request.generate {
        writeln!(err, "Completions to send, which consume tokens outside the budget: {completions}")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let well = runtime.block_on(walk_all(&plans, request, out))?;
    // Does not wait for lookups or connections that are still pending.
    runtime.shutdown_background();
    Ok(if well { EXIT_OK } else { EXIT_FAILED })
}

/// Prints why there is nothing to diagnose and returns the exit status, or returns `None`.
fn print_refusal(request: &Doctor<'_>, config: &Config, err: &mut impl Write) -> io::Result<Option<u8>> {
    let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
    if let Some(name) = request.providers.iter().find(|name| !known.contains(&name.as_str())) {
        writeln!(err, "no provider is named {name}; the configuration has: {}", known.join(", "))?;
        return Ok(Some(EXIT_USAGE));
    }
    if known.is_empty() {
        writeln!(err, "the configuration has no provider; add a [provider.NAME]")?;
        return Ok(Some(EXIT_FAILED));
    }
    Ok(None)
}

/// Diagnoses one provider after the other, so that a person can follow. Returns whether everything
/// works.
async fn walk_all(plans: &[Plan], request: &Doctor<'_>, out: &mut impl Write) -> io::Result<bool> {
    let mut well = true;
    for plan in plans {
        let mut show = Show { out, json: request.json, colour: request.colour };
        show.begin(plan)?;
        let found = walk(plan, &mut |step| show.step(step)).await?;
        show.end(plan, &found)?;
        well &= found.diagnosis.is_none();
    }
    Ok(well)
}
