//! `/internal/process`, and reading the operating system's texts about the process.
//!
//! The sections and keys are those that clients of the original know, although they name parts of
//! another runtime; each holds the nearest figure there is. Whoever asks reads the files; here
//! they are only understood.
//!
//! Contract: docs/contract/operations.md#4

use serde::Serialize;

use super::Inputs;
use super::conditional::{Page, no_store};
use crate::format::{Number, bytes, duration, instant};

/// The process, as the operating system sees it. 0 = not known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessFacts {
    /// Its number.
    pub pid: u32,
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// Most bytes that ever were.
    pub resident_peak_bytes: u64,
    /// Bytes in memory that belong to no file: what is allocated, and some.
    pub anonymous_bytes: u64,
    /// Bytes reserved for data.
    pub data_bytes: u64,
    /// Bytes of stacks.
    pub stack_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Bytes that the process may use: of its control group, else of the machine.
    pub memory_limit_bytes: u64,
    /// Seconds of processor time used.
    pub cpu_seconds: f64,
    /// Threads.
    pub threads: u64,
    /// Open files and sockets.
    pub open_fds: u64,
    /// Most that may be open.
    pub max_fds: u64,
    /// Tasks alive: connections and background work.
    pub live_tasks: u64,
    /// Processors that the process may use.
    pub cpus: u64,
    /// Event loops.
    pub workers: u64,
}

/// The texts that [`ProcessFacts::read`] understands; one that could not be read is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcTexts<'a> {
    /// `/proc/self/status`.
    pub status: &'a str,
    /// `/proc/self/stat`.
    pub stat: &'a str,
    /// `/proc/self/limits`.
    pub limits: &'a str,
    /// `/proc/meminfo`.
    pub meminfo: &'a str,
    /// `memory.max` of the control group.
    pub cgroup_memory_max: &'a str,
}

impl ProcessFacts {
    /// What the texts of Linux say. `open_fds`, `live_tasks`, `cpus` and `workers` stay 0.
    pub fn read(texts: &ProcTexts<'_>) -> Self {
        let status = |name| kilobytes(texts.status, name);
        let machine = kilobytes(texts.meminfo, "MemTotal:");
        let group: u64 = number(texts.cgroup_memory_max.trim());
        Self {
            pid: number(line(texts.status, "Pid:")),
            resident_bytes: status("VmRSS:"),
            resident_peak_bytes: status("VmHWM:"),
            anonymous_bytes: status("RssAnon:"),
            data_bytes: status("VmData:"),
            stack_bytes: status("VmStk:"),
            virtual_bytes: status("VmSize:"),
            memory_limit_bytes: match (group, machine) {
                (0, machine) => machine,
                (group, 0) => group,
                (group, machine) => group.min(machine),
            },
            cpu_seconds: cpu_seconds(texts.stat),
            threads: number(line(texts.status, "Threads:")),
            // Soft limit, hard limit, unit.
            max_fds: number(
                line(texts.limits, "Max open files")
                    .split_whitespace()
                    .next()
                    .unwrap_or(""),
            ),
            ..Self::default()
        }
    }
}

/// The rest of the line that begins so.
fn line<'a>(text: &'a str, name: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found.unwrap_or("").trim()
}

fn number<T: std::str::FromStr + Default>(text: &str) -> T {
    text.parse().unwrap_or_default()
}

fn kilobytes(text: &str, name: &str) -> u64 {
    let value = line(text, name).strip_suffix("kB").unwrap_or("").trim();
    number::<u64>(value).saturating_mul(1024)
}

/// User and system time of `/proc/self/stat`, in ticks of a hundredth of a second: the kernel
/// shows them so whatever its own clock is.
fn cpu_seconds(stat: &str) -> f64 {
    // The second field is the program's name in parentheses, which may hold blanks.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(11).take(2);
    ticks.map(number::<u64>).sum::<u64>() as f64 / 100.0
}

#[derive(Serialize)]
struct Process<'a> {
    timestamp: String,
    memory: Memory,
    garbage_collection: GarbageCollection,
    goroutines: Tasks,
    runtime: Runtime<'a>,
    allocations: Allocations,
    process: ProcessItem,
}

#[derive(Serialize)]
struct Memory {
    heap_alloc: String,
    heap_sys: String,
    heap_inuse: String,
    heap_released: String,
    stack_inuse: String,
    total_alloc: String,
    memory_pressure: &'static str,
}

/// There is none.
#[derive(Serialize, Default)]
struct GarbageCollection {
    last_gc: &'static str,
    total_gc_time: &'static str,
    avg_gc_pause: &'static str,
    gc_cpu_fraction: u64,
    num_gc_cycles: u64,
}

#[derive(Serialize)]
struct Tasks {
    count: u64,
    cgo_calls: u64,
    health_status: &'static str,
}

#[derive(Serialize)]
struct Runtime<'a> {
    uptime: String,
    go_version: &'a str,
    num_cpu: u64,
    gomaxprocs: u64,
}

/// The allocator does not count.
#[derive(Serialize, Default)]
struct Allocations {
    total_mallocs: u64,
    total_frees: u64,
    net_objects: u64,
}

#[derive(Serialize)]
struct ProcessItem {
    pid: u32,
    resident_bytes: u64,
    virtual_bytes: u64,
    cpu_seconds: Number,
    threads: u64,
    open_fds: u64,
    max_fds: u64,
}

pub(super) fn page(inputs: &Inputs<'_>) -> Page {
    let facts = inputs.process;
    let up_for = inputs.now.duration_since(inputs.started);
    no_store(&Process {
        timestamp: instant(inputs.now),
        memory: Memory {
            heap_alloc: bytes(facts.anonymous_bytes),
            heap_sys: bytes(facts.data_bytes),
            heap_inuse: bytes(facts.resident_bytes),
            heap_released: bytes(
                facts
                    .resident_peak_bytes
                    .saturating_sub(facts.resident_bytes),
            ),
            stack_inuse: bytes(facts.stack_bytes),
            total_alloc: bytes(facts.resident_peak_bytes),
            memory_pressure: pressure(facts.resident_bytes, facts.memory_limit_bytes),
        },
        garbage_collection: GarbageCollection::default(),
        goroutines: Tasks {
            count: facts.live_tasks,
            cgo_calls: 0,
            health_status: tasks_health(facts.live_tasks),
        },
        runtime: Runtime {
            uptime: duration(up_for.unwrap_or_default()),
            go_version: &inputs.build.compiler,
            num_cpu: facts.cpus,
            gomaxprocs: facts.workers,
        },
        allocations: Allocations::default(),
        process: ProcessItem {
            pid: facts.pid,
            resident_bytes: facts.resident_bytes,
            virtual_bytes: facts.virtual_bytes,
            cpu_seconds: Number(facts.cpu_seconds),
            threads: facts.threads,
            open_fds: facts.open_fds,
            max_fds: facts.max_fds,
        },
    })
}

/// By the share of the memory that may be used; low when that is not known.
fn pressure(resident: u64, limit: u64) -> &'static str {
    let above =
        |percent: u128| limit > 0 && u128::from(resident) * 100 > u128::from(limit) * percent;
    if above(90) {
        "HIGH"
    } else if above(70) {
        "MEDIUM"
    } else {
        "LOW"
    }
}

const fn tasks_health(count: u64) -> &'static str {
    match count {
        0..=100 => "HEALTHY",
        101..=500 => "NORMAL",
        501..=1000 => "ELEVATED",
        _ => "CONCERNING",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operations::testing::{World, value};

    const STATUS: &str = "Name:\tolla\nPid:\t77\nVmPeak:\t 9999 kB\nVmSize:\t  2048 kB\n\
        VmHWM:\t   1024 kB\nVmRSS:\t    512 kB\nRssAnon:\t  256 kB\nVmData:\t  4096 kB\n\
        VmStk:\t    132 kB\nThreads:\t5\n";

    #[test]
    fn the_texts_of_linux() {
        let stat = "77 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 5 0 100";
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max open files            1024                 1048576              files\n";
        let texts = ProcTexts {
            status: STATUS,
            stat,
            limits,
            meminfo: "MemTotal:       8 kB\nMemFree: 1 kB\n",
            cgroup_memory_max: "max\n",
        };
        let facts = ProcessFacts::read(&texts);
        assert_eq!(
            facts,
            ProcessFacts {
                pid: 77,
                resident_bytes: 512 << 10,
                resident_peak_bytes: 1 << 20,
                anonymous_bytes: 256 << 10,
                data_bytes: 4 << 20,
                stack_bytes: 132 << 10,
                virtual_bytes: 2 << 20,
                memory_limit_bytes: 8 << 10,
                cpu_seconds: 2.0,
                threads: 5,
                max_fds: 1024,
                ..ProcessFacts::default()
            }
        );
        let limited = ProcTexts {
            cgroup_memory_max: "4096\n",
            ..texts
        };
        assert_eq!(ProcessFacts::read(&limited).memory_limit_bytes, 4096);
        assert_eq!(
            ProcessFacts::read(&ProcTexts::default()),
            ProcessFacts::default()
        );
    }

    #[test]
    fn every_field() {
        let mut world = World::new();
        world.process = ProcessFacts {
            memory_limit_bytes: 600 << 10,
            live_tasks: 101,
            cpus: 4,
            workers: 2,
            open_fds: 9,
            cpu_seconds: 1.25,
            ..ProcessFacts::read(&ProcTexts {
                status: STATUS,
                ..ProcTexts::default()
            })
        };
        assert_eq!(
            value(&page(&world.inputs())),
            json!({
                "timestamp": "2026-04-15T10:30:00Z",
                "memory": {
                    "heap_alloc": "256.00 KB", "heap_sys": "4.00 MB", "heap_inuse": "512.00 KB",
                    "heap_released": "512.00 KB", "stack_inuse": "132.00 KB",
                    "total_alloc": "1.00 MB", "memory_pressure": "MEDIUM",
                },
                "garbage_collection": {
                    "last_gc": "", "total_gc_time": "", "avg_gc_pause": "",
                    "gc_cpu_fraction": 0, "num_gc_cycles": 0,
                },
                "goroutines": {"count": 101, "cgo_calls": 0, "health_status": "NORMAL"},
                "runtime": {
                    "uptime": "2h5m0s", "go_version": "rustc 1.95.0", "num_cpu": 4,
                    "gomaxprocs": 2,
                },
                "allocations": {"total_mallocs": 0, "total_frees": 0, "net_objects": 0},
                "process": {
                    "pid": 77, "resident_bytes": 524_288, "virtual_bytes": 2_097_152,
                    "cpu_seconds": 1.25, "threads": 5, "open_fds": 9, "max_fds": 0,
                },
            })
        );
    }

    #[test]
    fn thresholds() {
        for (resident, limit, expected) in [
            (70, 100, "LOW"),
            (71, 100, "MEDIUM"),
            (90, 100, "MEDIUM"),
            (91, 100, "HIGH"),
            (91, 0, "LOW"),
        ] {
            assert_eq!(pressure(resident, limit), expected);
        }
        for (count, expected) in [
            (100, "HEALTHY"),
            (101, "NORMAL"),
            (500, "NORMAL"),
            (501, "ELEVATED"),
            (1000, "ELEVATED"),
            (1001, "CONCERNING"),
        ] {
            assert_eq!(tasks_health(count), expected);
        }
    }
}
