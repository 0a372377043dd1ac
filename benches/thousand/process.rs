//! Processes of the benchmark, and their and the machine's resources according to Linux.

use std::{
    collections::BTreeMap,
    error::Error,
    fs, io,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    param::clock_ticks_per_second,
    process::{Pid, Signal, kill_process},
};

/// Maximum time until a process ends after a request: the daemon guarantees 10 s.
const STOP: Duration = Duration::from_secs(11);

/// A process that ends with this value.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
}

impl Running {
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self, Box<dyn Error>> {
        let child = command.spawn().map_err(|error| format!("{name} does not start: {error}"))?;
        Ok(Self { name, child })
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn check_alive(&mut self) -> Result<(), Box<dyn Error>> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("{} has ended, {status}", self.name).into()),
        }
    }

    /// Sends SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self) -> Result<(), Box<dyn Error>> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                None => thread::sleep(Duration::from_millis(10)),
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.ended_badly(status)),
            }
        }
        Err(format!("{} does not end within {STOP:?}", self.name).into())
    }

    fn ended_badly(&self, status: ExitStatus) -> Box<dyn Error> {
        format!("{} ended with {status}", self.name).into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resources that a process has used, and uses now.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Seconds in user mode and in the kernel.
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// Seconds of both, by thread name.
    pub(crate) threads: BTreeMap<String, f64>,
    /// Current and maximum bytes.
    pub(crate) resident: u64,
    pub(crate) peak: u64,
    pub(crate) descriptors: usize,
    pub(crate) thread_count: usize,
}

impl Usage {
    pub(crate) fn of(id: u32) -> io::Result<Self> {
        let directory = format!("/proc/{id}");
        let (_, user, system) = times(&fs::read_to_string(format!("{directory}/stat"))?)?;
        let mut threads = BTreeMap::new();
        let mut thread_count = 0;
        for task in fs::read_dir(format!("{directory}/task"))? {
            // A thread may end after the directory was listed.
            let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else { continue };
            let (name, user, system) = times(&stat)?;
            *threads.entry(name).or_default() += user + system;
            thread_count += 1;
        }
        let status = fs::read_to_string(format!("{directory}/status"))?;
        Ok(Self {
            user,
            system,
            threads,
            resident: kibibytes(&status, "VmRSS:")? * 1024,
            peak: kibibytes(&status, "VmHWM:")? * 1024,
            descriptors: fs::read_dir(format!("{directory}/fd"))?.count(),
            thread_count,
        })
    }
}

/// Returns name, utime and stime of a stat line (proc(5)), in seconds with the resolution of a
/// clock tick.
fn times(stat: &str) -> io::Result<(String, f64, f64)> {
    // The name is in parentheses and may contain blanks and parentheses.
    let (head, fields) = stat.rsplit_once(") ").ok_or_else(|| invalid("stat"))?;
    let name = head.split_once(" (").ok_or_else(|| invalid("stat"))?.1;
    let mut fields = fields.split_whitespace().skip(11);
    Ok((name.to_owned(), ticks(&mut fields)?, ticks(&mut fields)?))
}

fn ticks<'a>(fields: &mut impl Iterator<Item = &'a str>) -> io::Result<f64> {
    let ticks: u32 = fields.next().and_then(|field| field.parse().ok()).ok_or_else(|| invalid("stat"))?;
    Ok(f64::from(ticks) / clock_ticks_per_second() as f64)
}

fn kibibytes(status: &str, key: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| invalid("status"))
}

/// Processor time of the machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Seconds of all processors that were not idle, including those taken by other virtual
    /// machines.
    pub(crate) busy: f64,
    /// Of these, seconds taken by other virtual machines.
    pub(crate) stolen: f64,
}

impl Machine {
    pub(crate) fn now() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        // user nice system idle iowait irq softirq steal; the guest times after them are part of
        // user.
        let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let fields: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let &[user, nice, system, _, _, irq, softirq, steal, ..] = fields.as_slice() else {
            return Err(invalid("/proc/stat"));
        };
        let tick = clock_ticks_per_second() as f64;
        Ok(Self { busy: (user + nice + system + irq + softirq + steal) / tick, stolen: steal / tick })
    }
}

/// Returns processors and kernel.
pub(crate) fn machine_name() -> io::Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        processors.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let count = thread::available_parallelism()?;
    Ok(format!("{count} × {}, Linux {}", model.unwrap_or("unknown processor"), kernel.trim()))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not as proc(5) describes it"))
}
