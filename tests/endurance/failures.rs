//! Failures around the daemon that begin and end at random.

use std::{
    fs::{self, File},
    io::Write,
};

use rustix::process::{Resource, Rlimit, prlimit};

use super::{
    draw::Draw,
    line_account::LineAccount,
    names::{ADDRESS, Manner},
    world::{World, resolver_file},
};
use crate::harness::random::Random;

const DAY: i64 = 86_400;

/// A lasting failure. All can be active at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    FullDisk,
    FileForDirectory,
    NoDescriptors,
    NameServer,
    ResolverFile,
    Clock,
}

impl Failure {
    pub const ALL: [Self; 6] = [
        Self::FullDisk,
        Self::FileForDirectory,
        Self::NoDescriptors,
        Self::NameServer,
        Self::ResolverFile,
        Self::Clock,
    ];
}

/// Active failures, and the turn in which each ends.
#[derive(Default)]
pub struct Failures {
    on: Vec<(Failure, u64)>,
    pub begun: [u64; 6],
    pub removals: u64,
    /// The daemon's soft limit of descriptors, while it is reduced.
    limit: Option<Rlimit>,
}

impl Failures {
    /// Ends failures whose time is over, and may begin another.
    pub fn turn(&mut self, turn: u64, world: &World, account: &mut LineAccount, random: &mut Random) {
        for (failure, until) in std::mem::take(&mut self.on) {
            if until <= turn {
                self.end(failure, world, account);
            } else {
                self.on.push((failure, until));
            }
        }
        let which = random.below(Failure::ALL.len());
        let failure = Failure::ALL[which];
        if random.one_in(4) && !self.is_on(failure) {
            self.begun[which] += 1;
            self.on.push((failure, turn + 1 + random.draw() % 5));
            self.begin(failure, world, account, random);
        }
        if random.one_in(8) && !self.is_on(Failure::FileForDirectory) {
            self.removals += 1;
            account.remove_logs();
        }
    }

    pub fn is_on(&self, failure: Failure) -> bool {
        self.on.iter().any(|(on, _)| *on == failure)
    }

    /// Ends all failures.
    pub fn cease(&mut self, world: &World, account: &mut LineAccount) {
        for (failure, _) in std::mem::take(&mut self.on) {
            self.end(failure, world, account);
        }
    }

    fn begin(&mut self, failure: Failure, world: &World, account: &mut LineAccount, random: &mut Random) {
        match failure {
            Failure::FullDisk => fill(world),
            Failure::FileForDirectory => account.obstruct(),
            Failure::NoDescriptors => {
                let before = prlimit(Some(world.prober.pid()), Resource::Nofile, limit(3)).unwrap();
                self.limit = Some(before);
            }
            Failure::NameServer => world.names.set(*random.pick(&[
                Manner::Silent,
                Manner::Gone,
                Manner::Garbles,
                Manner::Fails(2),
                Manner::Fails(3),
                Manner::Fails(5),
            ])),
            Failure::ResolverFile => resolver_file(*random.pick(&[
                None,
                Some(""),
                Some("nameserver 127.0.0.99\n"),
                Some("nameserver of the year\n\0\u{1}"),
            ])),
            Failure::Clock => world.set_clock(*random.pick(&[DAY, -DAY, 3600, -3600, 90, 366 * DAY])),
        }
    }

    fn end(&mut self, failure: Failure, world: &World, account: &LineAccount) {
        match failure {
            Failure::FullDisk => fs::remove_file(world.path("disk/ballast")).unwrap(),
            Failure::FileForDirectory => account.unobstruct(),
            Failure::NoDescriptors => {
                let before = self.limit.take().expect("set when it began");
                prlimit(Some(world.prober.pid()), Resource::Nofile, before).unwrap();
            }
            Failure::NameServer => world.names.set(Manner::Answers),
            Failure::ResolverFile => {
                resolver_file(Some(&format!("nameserver {ADDRESS}\noptions timeout:1 attempts:1\n")));
            }
            Failure::Clock => world.set_clock(0),
        }
    }
}

/// Returns a soft limit, which the hard one permits.
fn limit(descriptors: u64) -> Rlimit {
    Rlimit { current: Some(descriptors), maximum: rustix::process::getrlimit(Resource::Nofile).maximum }
}

fn fill(world: &World) {
    let mut ballast = File::create(world.path("disk/ballast")).unwrap();
    let block = vec![0; 1 << 16];
    for size in [1 << 16, 512] {
        while ballast.write_all(&block[..size]).is_ok() {}
    }
}
