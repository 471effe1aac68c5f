//! Rows as `bench/run` prints them: a JSON object with a row for every figure, or lines for people.

use serde_json::{Map, Value, json};

use crate::{report::machine, say};

/// The rows of a benchmark.
#[derive(Debug)]
pub(crate) struct Table {
    name: &'static str,
    rows: Vec<Value>,
}

/// A figure, and what it is held against.
#[derive(Debug, Default)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) unit: &'static str,
    pub(crate) figure: Option<f64>,
    pub(crate) reference: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    pub(crate) goal: Option<f64>,
    pub(crate) met: Option<bool>,
    /// Why it could not be measured, or what is special about it.
    pub(crate) why: Option<String>,
    /// What belongs to it beyond that.
    pub(crate) more: Map<String, Value>,
}

impl Table {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        let ratio = row.figure.zip(row.reference).map(|(figure, reference)| round(figure / reference));
        let mut object = json!({
            "case": row.case,
            "figure": row.figure.map(round),
            "unit": row.unit,
            "reference": row.reference.map(round),
            "ratio": ratio,
            "min": row.min.map(round),
            "max": row.max.map(round),
            "goal": row.goal,
            "met": row.met,
        });
        let fields = object.as_object_mut().expect("it was made as an object");
        fields.extend(row.why.map(|why| ("why".to_owned(), why.into())));
        fields.extend(row.more);
        self.rows.push(object);
    }

    pub(crate) fn print_json(&self) {
        say(&json!({ "name": self.name, "machine": machine(), "rows": self.rows }).to_string());
    }
}

/// To a thousandth: more is noise.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The value that so many of a hundred do not exceed; NaN of none.
pub(crate) fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * percent / 100.0).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// For people; a dash where there is nothing.
pub(crate) fn shown(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or("-".to_owned(), |value| format!("{value:.0}"))
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([50.0, 99.0, 100.0].map(|p| percentile(&hundred, p)), [50.0, 99.0, 100.0]);
        assert_eq!(percentile(&[7.0], 99.0), 7.0);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
