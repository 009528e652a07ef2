//! Sends the generated cases, each on a connection of its own.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Field, case, first_status, read_until};

/// Connections at one time.
const THREADS: usize = 32;

/// How long a response to a case is waited for; one that is not complete gets none.
const PATIENCE: Duration = Duration::from_millis(300);

/// Time to wait for further responses after the first: a smuggled request would get one.
const AFTERWARDS: Duration = Duration::from_millis(30);

pub(super) fn run(field: &Field<'_>) {
    let next = AtomicUsize::new(0);
    let count = field.count(2400);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count || field.is_over() {
                        return;
                    }
                    send(field, number);
                }
            });
        }
    });
}

fn send(field: &Field<'_>, number: usize) {
    let case = case(field.options.seed, number, field.target());
    let Some(mut stream) = field.connect() else {
        return;
    };
    field.mark(&case.marks);
    let mut received = Vec::new();
    let mut ended = stream.write_all(&case.bytes).is_err();
    if !ended {
        ended = read_until(&mut stream, &mut received, PATIENCE, |received| {
            first_status(received).is_some()
        });
    }
    if !ended && !received.is_empty() {
        ended = read_until(&mut stream, &mut received, AFTERWARDS, |_| false);
    }
    field.note(|tally| {
        tally.sent += 1;
        tally.bytes += case.bytes.len() as u64;
        tally.end(&received, ended);
    });
}
