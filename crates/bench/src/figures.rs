//! Medians and tables.

/// What several turns measured of one thing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figure(Vec<f64>);

impl Figure {
    pub(crate) fn add(&mut self, measured: f64) {
        let place = self.0.partition_point(|before| *before < measured);
        self.0.insert(place, measured);
    }

    pub(crate) fn median(&self) -> f64 {
        match self.0.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => self.0[odd / 2],
            even => f64::midpoint(self.0[even / 2 - 1], self.0[even / 2]),
        }
    }

    /// A quarter of what was measured lies below the first, a quarter above the second.
    pub(crate) fn quartiles(&self) -> (f64, f64) {
        let at = |part: f64| {
            let place = part * self.0.len().saturating_sub(1) as f64;
            let (low, high) = (place.floor() as usize, place.ceil() as usize);
            match (self.0.get(low), self.0.get(high)) {
                (Some(low), Some(high)) => low + (high - low) * place.fract(),
                _ => f64::NAN,
            }
        };
        (at(0.25), at(0.75))
    }

    /// The median, and in parentheses the lowest and the highest.
    pub(crate) fn show(&self) -> String {
        match (self.0.first(), self.0.last()) {
            (Some(low), Some(high)) => {
                let median = rounded(self.median());
                format!("{median} ({}–{})", rounded(*low), rounded(*high))
            }
            _ => "–".to_owned(),
        }
    }
}

/// Three significant digits, thousands set apart.
pub(crate) fn rounded(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = (value.log10().floor() as i32 - 2).max(0);
    let step = 10f64.powi(digits);
    let whole = format!("{:.0}", (value / step).round() * step);
    let mut text = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table in Markdown.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = line(&head);
    text.push_str(&line(&vec!["---".to_owned(); head.len()]));
    for row in rows {
        text.push_str(&line(row));
    }
    text
}
