//! `simulate`: runs the simulator until a signal stops it.

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
};

use super::{EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK};
use crate::{
    signals::{Signal, Signals},
    simulator::{Options, Scenario, SimulatedService, Simulator},
};

/// The arguments of the command.
pub struct Simulate<'a> {
    /// The address for HTTP.
    pub listen: SocketAddr,
    /// The address for HTTPS. `None` disables HTTPS.
    pub tls_listen: Option<SocketAddr>,
    /// The file to write the CA certificate to.
    pub ca_file: Option<&'a Path>,
    /// The scenario file. `None` simulates no faults.
    pub scenario: Option<&'a Path>,
}

/// Runs the command. Addresses go to `out`, everything else to `err`. Returns the exit status.
pub fn simulate(request: &Simulate<'_>, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let scenario = match request.scenario.map(read) {
        None => Scenario::default(),
        Some(Ok(scenario)) => scenario,
        Some(Err(problem)) => {
            writeln!(err, "{problem}")?;
            return Ok(EXIT_CONFIGURATION);
        }
    };
    for address in [Some(request.listen), request.tls_listen].into_iter().flatten() {
        if let Some(warning) = exposed(address) {
            writeln!(err, "warning: {warning}")?;
        }
    }
    let options = Options { listen: request.listen, tls_listen: request.tls_listen, scenario };
    let simulator = match Simulator::start(options) {
        Ok(simulator) => simulator,
        Err(error) => {
            writeln!(err, "cannot simulate on {}: {error}; set another --listen", request.listen)?;
            return Ok(EXIT_FAILED);
        }
    };
    if let Some(path) = request.ca_file {
        fs::write(path, simulator.ca_pem()).map_err(|error| unwritten(path, &error))?;
    }
    print_addresses(&simulator, out)?;
    wait_for_stop()?;
    Ok(EXIT_OK)
}

/// Returns a warning if the address can be reached from other machines.
fn exposed(address: SocketAddr) -> Option<String> {
    (!address.ip().to_canonical().is_loopback()).then(|| {
        format!(
            "{address} is not a loopback address: other machines can use the simulator, which accepts nearly any \
             key; omit --listen, or restrict access with a firewall"
        )
    })
}

fn read(path: &Path) -> Result<Scenario, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}; check --scenario", path.display()))?;
    Scenario::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn unwritten(path: &Path, error: &io::Error) -> io::Error {
    let path = path.display();
    io::Error::new(error.kind(), format!("{path} cannot be written: {error}; check --ca-file"))
}

/// Prints the URLs to configure.
fn print_addresses(simulator: &Simulator, out: &mut impl Write) -> io::Result<()> {
    for provider in SimulatedService::ALL {
        let path = provider.prefix();
        writeln!(out, "{:<11} base_url = \"http://{}{path}\"", provider.name(), simulator.address())?;
        if let Some(address) = simulator.tls_address() {
            writeln!(out, "{:<11} base_url = \"https://{address}{path}\"", "")?;
        }
        let path = provider.status_path();
        writeln!(out, "{:<11} status_url = \"http://{}{path}\"", "", simulator.address())?;
    }
    out.flush()
}

fn wait_for_stop() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        while signals.next().await != Signal::Stop {}
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_scenario_is_named() {
        let why = read(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(
            why,
            "/nonexistent cannot be read: No such file or directory (os error 2); check --scenario"
        );
    }

    #[test]
    fn address_beyond_loopback_is_warned_of() {
        for quiet in ["127.0.0.1:1", "127.7.7.7:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(exposed(quiet.parse().unwrap()), None, "{quiet}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            let warning = exposed(open.parse().unwrap());
            assert!(warning.is_some_and(|warning| warning.starts_with(open)), "{open}");
        }
    }
}
