//! The rows of the ledger in the store.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, Transaction, params, params_from_iter};

use super::day::Day;
use super::fault::StoreFault;
use super::integer::{signed, unsigned};
use super::query::{Column, Groups, UsageQuery};
use super::usage::{Ledger, UsageFigures};

/// The sums of a group.
const SUMS: &str = "TOTAL(requests), TOTAL(errors), TOTAL(prompt_tokens), TOTAL(cached_tokens), \
                    TOTAL(completion_tokens), TOTAL(seconds)";

/// Adds the rows of the ledger to those of the store.
pub(super) fn add(transaction: &Transaction<'_>, ledger: &Ledger) -> Result<(), StoreFault> {
    let mut put = transaction.prepare(
        "INSERT INTO usage VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
         ON CONFLICT (day, key, model, endpoint) DO UPDATE SET \
         requests = requests + ?5, errors = errors + ?6, \
         prompt_tokens = prompt_tokens + ?7, cached_tokens = cached_tokens + ?8, \
         completion_tokens = completion_tokens + ?9, seconds = seconds + ?10",
    )?;
    for (row, sum) in ledger.rows() {
        put.execute(params![
            row.day.to_string(),
            &*row.key,
            &*row.model,
            &*row.endpoint,
            signed(sum.requests),
            signed(sum.errors),
            signed(sum.prompt_tokens),
            signed(sum.cached_tokens),
            signed(sum.completion_tokens),
            sum.seconds,
        ])?;
    }
    Ok(())
}

/// Deletes the rows of days before this one.
pub(super) fn delete_before(connection: &Connection, day: Day) -> Result<(), StoreFault> {
    connection.execute("DELETE FROM usage WHERE day < ?1", [day.to_string()])?;
    Ok(())
}

/// The groups of a report, one more than its limit, and the total of all.
pub(super) fn report(
    connection: &Connection,
    query: &UsageQuery,
) -> Result<(Groups, UsageFigures), StoreFault> {
    let (condition, mut values) = condition(query);
    let total = connection.query_row(
        &format!("SELECT {SUMS} FROM usage WHERE {condition}"),
        params_from_iter(&values),
        |row| figures(row, 0),
    )?;
    let names: Vec<_> = query.group.iter().map(|column| column.name()).collect();
    let names = names.join(", ");
    let after = match &query.after {
        None => String::new(),
        Some(after) => {
            values.extend(after.iter().cloned().map(Value::from));
            let marks = vec!["?"; after.len()].join(", ");
            format!(" AND ({names}) > ({marks})")
        }
    };
    let text = format!(
        "SELECT {names}, {SUMS} FROM usage WHERE {condition}{after} \
         GROUP BY {names} ORDER BY {names} LIMIT {}",
        query.limit + 1
    );
    let columns = query.group.len();
    let mut statement = connection.prepare(&text)?;
    let groups = statement.query_map(params_from_iter(&values), |row| {
        let group = (0..columns).map(|at| row.get(at));
        let group = group.collect::<rusqlite::Result<Vec<String>>>()?;
        Ok((group, figures(row, columns)?))
    })?;
    Ok((groups.collect::<Result<_, _>>()?, total))
}

/// The condition of the rows that a query admits, and its values.
fn condition(query: &UsageQuery) -> (String, Vec<Value>) {
    let mut text = format!("{0} >= ? AND {0} <= ?", Column::Day.name());
    let mut values = vec![
        Value::from(query.since.to_string()),
        Value::from(query.until.to_string()),
    ];
    for (column, wanted) in &query.filters {
        if let Some(wanted) = wanted {
            text.push_str(&format!(" AND {} = ?", column.name()));
            values.push(Value::from(wanted.clone()));
        }
    }
    (text, values)
}

/// The sums of a row, from this column on. They are floating-point numbers there, so that no sum is
/// too large: whole up to 2^53.
fn figures(row: &Row<'_>, from: usize) -> rusqlite::Result<UsageFigures> {
    let count = |at: usize| row.get::<_, f64>(from + at).map(|sum| unsigned(sum as i64));
    Ok(UsageFigures {
        requests: count(0)?,
        errors: count(1)?,
        prompt_tokens: count(2)?,
        cached_tokens: count(3)?,
        completion_tokens: count(4)?,
        seconds: row.get(from + 5)?,
    })
}
