//! The command itself: configuration, one walk after the other, the exit status.

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
    commands::{EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK, EXIT_USAGE, by_hand::by_hand, forbid_core_dumps},
    config::{self, Config, Keys, Surroundings, systemd_run},
    probe::NetworkStack,
};

/// What the person asked for.
#[derive(Clone, Copy, Debug)]
pub struct Doctor<'a> {
    /// The configuration.
    pub path: &'a Path,
    /// One JSON object a provider, in place of the lines.
    pub json: bool,
    /// Whether to spend tokens on completions.
    pub generate: bool,
    /// Names of providers; all if empty.
    pub providers: &'a [String],
    /// Whether the lines are coloured.
    pub colour: bool,
}

/// Runs the command: results to `out`, everything else to `err`. The value is the exit status.
pub fn doctor(
    request: &Doctor<'_>,
    surroundings: &Surroundings<'_>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    // Before there is a key in memory.
    forbid_core_dumps(err);
    // A key that cannot be read here is one provider's illness, and the others are looked at all the same.
    let keys = match request.providers {
        [] => Keys::Reported,
        named => Keys::ReportedOf(named),
    };
    let loaded = match config::load(request.path, keys, surroundings) {
        Ok(loaded) => loaded,
        Err(problems) => {
            writeln!(err, "{problems}")?;
            return Ok(EXIT_CONFIGURATION);
        }
    };
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    if !loaded.credentials.is_empty() && surroundings.credentials_directory().is_none() {
        let flags = [(request.json, "--json"), (request.generate, "--generate")];
        let command = by_hand("doctor", request.path, &flags, request.providers);
        let line = systemd_run(loaded.credentials.iter().map(String::as_str), &command);
        writeln!(
            err,
            "To have the credentials, as root and with the paths of the unit's LoadCredential=:\n  {line}"
        )?;
    }
    if let Some(status) = refuse(request, &loaded.config, err)? {
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
        writeln!(err, "Completions to send, which spend tokens outside the budget: {completions}")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let well = runtime.block_on(walk_all(&plans, request, out))?;
    // Nothing that still waits for a resolver or a peer keeps a person from the prompt.
    runtime.shutdown_background();
    Ok(if well { EXIT_OK } else { EXIT_FAILED })
}

/// The exit status where there is nothing to walk.
fn refuse(request: &Doctor<'_>, config: &Config, err: &mut impl Write) -> io::Result<Option<u8>> {
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

/// One walk after the other, so that a person can follow; the value is whether all is well.
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
