//! Pages in Prometheus' text format.

use memchr::memchr_iter;

use super::ReadingFault;
use super::source::PageSource;

/// Requests in a server, those of all clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EngineRequests {
    /// Those that it works on.
    pub running: u32,
    /// Those that wait in it.
    pub waiting: u32,
}

/// Reads the requests of a server from its page. The rows of a metric, which may have one for each
/// model or engine, are summed.
///
/// # Errors
/// It is no such page, or lacks the metrics.
pub(crate) fn parse_page(source: &PageSource, page: &[u8]) -> Result<EngineRequests, ReadingFault> {
    if page.trim_ascii_start().starts_with(b"<") {
        return Err(ReadingFault::Html);
    }
    let mut running = Sums::of(&source.running);
    let mut waiting = Sums::of(&source.waiting);
    let mut start = 0;
    for end in memchr_iter(b'\n', page).chain([page.len()]) {
        let line = page.get(start..end).unwrap_or_default();
        start = end + 1;
        if !matches!(line.first(), None | Some(b'#')) {
            running.add(line);
            waiting.add(line);
        }
    }
    let both = running.first().zip(waiting.first());
    let (running, waiting) = both.ok_or(ReadingFault::NoMetrics)?;
    Ok(EngineRequests { running, waiting })
}

/// The sums of some metrics.
struct Sums<'s> {
    names: &'s [String],
    /// For each name the sum of its rows; `None` = there is none.
    sums: Vec<Option<f64>>,
}

impl<'s> Sums<'s> {
    fn of(names: &'s [String]) -> Self {
        Self {
            names,
            sums: vec![None; names.len()],
        }
    }

    fn add(&mut self, line: &[u8]) {
        for (name, sum) in self.names.iter().zip(&mut self.sums) {
            let rest = line.strip_prefix(name.as_bytes());
            if let Some(value) = rest.and_then(value) {
                *sum = Some(sum.unwrap_or(0.0) + value);
            }
        }
    }

    /// The first metric that is there, as a whole number.
    fn first(&self) -> Option<u32> {
        let sum = self.sums.iter().flatten().next()?;
        Some(sum.round() as u32)
    }
}

/// The value of a row, from the end of the metric's name on. `None` also if it is no number from
/// zero.
fn value(rest: &[u8]) -> Option<f64> {
    let rest = match rest.first()? {
        b'{' => rest.get(labels_end(rest)?..)?,
        b' ' | b'\t' => rest,
        // A longer name.
        _ => return None,
    };
    let mut words = rest.split(u8::is_ascii_whitespace);
    let word = words.find(|word| !word.is_empty())?;
    let value: f64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// The position after the labels of a row, which may contain anything in quotes.
fn labels_end(labels: &[u8]) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = labels.iter().position(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b'}' => return !is_quoted,
            _ => {}
        }
        false
    })?;
    Some(end + 1)
}
