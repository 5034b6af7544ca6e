//! How near the process is to what it may use, and the level that follows from it.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::param::page_size;
use rustix::process::{Resource, getrlimit};

use crate::config::overload::Overload as Config;
use crate::overload::{Level, Overload};
use crate::telemetry::metrics::{Gauge, Registry};

/// A resource of which there is so much and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scarce {
    Memory,
    Descriptors,
    LoopDelay,
}

impl Scarce {
    const ALL: [Self; 3] = [Self::Memory, Self::Descriptors, Self::LoopDelay];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Descriptors => "descriptors",
            Self::LoopDelay => "loop_delay",
        }
    }
}

/// Looks at what the process uses.
#[derive(Debug)]
pub struct Gauges {
    level: Level,
    /// What the control group lets the process have.
    memory: Option<u64>,
    /// The descriptors that it may open.
    descriptors: u64,
    pressure: [Gauge; Scarce::ALL.len()],
    levels: Gauge,
}

/// By how much less than what a level begins at must be in use before it is left, in hundredths: it is not to come and
/// go with every connection.
const SLACK: u64 = 2;

impl Gauges {
    /// Reads what the process may use.
    pub fn new(registry: &Registry) -> Self {
        let help = "What is in use of what may be, in hundredths.";
        let gauge = |resource: Scarce| {
            registry.gauge("weir_overload_pressure_percent", help, &[("resource", resource.as_str())])
        };
        Self {
            level: Level::Normal,
            memory: memory_limit(),
            // `None` is infinity.
            descriptors: getrlimit(Resource::Nofile).current.unwrap_or(0),
            pressure: Scarce::ALL.map(gauge),
            levels: registry.gauge(
                "weir_overload_level",
                "What is given up: 0 nothing, 1 keep-alive, 2 requests, 3 connections, 4 streams.",
                &[],
            ),
        }
    }

    /// Looks again, and returns the level from now on.
    pub fn look(&mut self, config: &Config, overload: &Overload) -> Level {
        let mut most = (0, Scarce::Memory);
        for (resource, gauge) in Scarce::ALL.into_iter().zip(&self.pressure) {
            let pressure = self.pressure_of(resource, config, overload);
            gauge.set(i64::try_from(pressure).unwrap_or(i64::MAX));
            // To reset streams does not give a worker back the time that it has lost.
            let bounded = u64::from(config.reset_streams.0).saturating_sub(1);
            let pressure = if resource == Scarce::LoopDelay { pressure.min(bounded) } else { pressure };
            if pressure > most.0 {
                most = (pressure, resource);
            }
        }
        let next = next_level(self.level, most.0, config);
        if next != self.level {
            let (pressure, resource) = (most.0, most.1.as_str());
            let (from, to) = (self.level.as_str(), next.as_str());
            tracing::warn!(resource, pressure, from, to, "the level of overload has changed");
        }
        self.levels.set(next as i64);
        self.level = next;
        next
    }

    /// What is in use of a resource, in hundredths of what may be; 0 when there is no limit.
    fn pressure_of(&self, resource: Scarce, config: &Config, overload: &Overload) -> u64 {
        let (used, most) = match resource {
            Scarce::Memory => {
                let most = config.max_memory.map(|size| size.0 as u64).or(self.memory);
                (most.map_or(0, |_| resident()), most.unwrap_or(0))
            }
            Scarce::Descriptors => {
                let most = config.max_descriptors.map_or(self.descriptors, u64::from);
                (if most == 0 { 0 } else { open_descriptors() }, most)
            }
            Scarce::LoopDelay => {
                (millis(overload.delay().as_millis()), millis(config.max_loop_delay.as_millis()))
            }
        };
        used.saturating_mul(100).checked_div(most).unwrap_or(0)
    }
}

fn millis(millis: u128) -> u64 {
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// Up at once, down by one degree at a time.
fn next_level(level: Level, pressure: u64, config: &Config) -> Level {
    let begins = |level: Level| match level {
        Level::Normal => 0,
        Level::NoKeepalive => config.disable_keepalive.0.into(),
        Level::NoRequests => config.stop_accepting_requests.0.into(),
        Level::NoConnections => config.stop_accepting_connections.0.into(),
        Level::Reset => config.reset_streams.0.into(),
    };
    let reached = Level::ALL.into_iter().filter(|level| begins(*level) <= pressure).max();
    let reached = reached.unwrap_or(Level::Normal);
    if reached >= level || pressure.saturating_add(SLACK) >= begins(level) {
        return reached.max(level);
    }
    Level::ALL.into_iter().filter(|lower| *lower < level).max().unwrap_or(Level::Normal)
}

/// The memory that is resident, in bytes.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(page_size() as u64)
}

/// The descriptors that are open. Newer kernels (6.2) tell their number; else they are counted.
fn open_descriptors() -> u64 {
    const OWN: &str = "/proc/self/fd";
    match fs::metadata(OWN) {
        Ok(told) if told.len() > 0 => told.len(),
        Ok(_) | Err(_) => fs::read_dir(OWN).map_or(0, |all| all.count() as u64),
    }
}

/// What the control group lets the process have, in bytes.
fn memory_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let folder = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(folder.trim_start_matches('/'));
    // The limits of the groups above count as well.
    let groups = own.ancestors().take_while(|group| group.starts_with(root)).map(PathBuf::from);
    let limit = |group: PathBuf| fs::read_to_string(group.join("memory.max")).ok()?.trim().parse().ok();
    groups.filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config as Whole;

    #[test]
    fn levels_rise_at_once_and_fall_by_one_degree_when_there_is_room() {
        let config = Whole::parse(Path::new("weir.yaml"), "{}").expect("defaults").sections.overload;
        let next = |level, pressure| next_level(level, pressure, &config);
        for (pressure, level) in [
            (0, Level::Normal),
            (91, Level::Normal),
            (92, Level::NoKeepalive),
            (95, Level::NoRequests),
            (97, Level::NoConnections),
            (99, Level::Reset),
            (200, Level::Reset),
        ] {
            assert_eq!(next(Level::Normal, pressure), level, "{pressure}");
        }
        assert_eq!(next(Level::NoRequests, 94), Level::NoRequests, "it is near");
        assert_eq!(next(Level::NoRequests, 92), Level::NoKeepalive);
        assert_eq!(next(Level::Reset, 0), Level::NoConnections, "one by one");
        assert_eq!(next(Level::NoKeepalive, 0), Level::Normal);
    }

    #[test]
    fn what_the_process_uses_is_seen() {
        let before = open_descriptors();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").expect("it is there")).collect();
        // Other tests open and close some, too.
        assert!(open_descriptors() > before, "{} files more", files.len());
        assert!(resident() > 1 << 20);
    }
}
