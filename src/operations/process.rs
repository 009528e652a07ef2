//! `/internal/process`: the process as the operating system sees it.
//!
//! Sections and keys are those of Olla, although they name parts of the Go runtime; each contains
//! the nearest value that exists here.
//!
//! Contract: docs/contract/operations.md#4

use serde::Serialize;

use super::Inputs;
use super::conditional::{Page, no_store};
use crate::clock::since;
use crate::format::{Number, bytes, duration, instant};

/// The process as the operating system sees it. 0 = unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcessFacts {
    /// Process id.
    pub pid: u32,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// The largest resident memory so far, in bytes.
    pub resident_peak_bytes: u64,
    /// Resident memory that belongs to no file: mostly the heap.
    pub anonymous_bytes: u64,
    /// Size of the data segment in bytes.
    pub data_bytes: u64,
    /// Size of the main stack in bytes.
    pub stack_bytes: u64,
    /// Address space in bytes.
    pub virtual_bytes: u64,
    /// Memory that the process may use: the limit of its control group, or the machine's memory.
    pub memory_limit_bytes: u64,
    /// User and system CPU time in seconds.
    pub cpu_seconds: f64,
    /// Threads.
    pub threads: u64,
    /// Open files and sockets.
    pub open_fds: u64,
    /// Limit of open files.
    pub max_fds: u64,
    /// Running tasks: connections and background work.
    pub live_tasks: u64,
    /// CPUs that the process may use.
    pub cpus: u64,
    /// Event loops.
    pub workers: u64,
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

/// Rust has no garbage collector: all values are zero or empty.
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

/// The allocator keeps no counts: all values are zero.
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
            uptime: duration(since(inputs.started, inputs.now)),
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

/// A level for the share of the memory limit in use; `LOW` if the limit is unknown.
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

    #[test]
    fn every_field() {
        let mut world = World::new();
        world.process = ProcessFacts {
            pid: 77,
            resident_bytes: 512 << 10,
            resident_peak_bytes: 1 << 20,
            anonymous_bytes: 256 << 10,
            data_bytes: 4 << 20,
            stack_bytes: 132 << 10,
            virtual_bytes: 2 << 20,
            memory_limit_bytes: 600 << 10,
            cpu_seconds: 1.25,
            threads: 5,
            open_fds: 9,
            max_fds: 1024,
            live_tasks: 101,
            cpus: 4,
            workers: 2,
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
                    "cpu_seconds": 1.25, "threads": 5, "open_fds": 9, "max_fds": 1024,
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
