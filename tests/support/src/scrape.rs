//! What processes show on `/metrics`, as a monitoring system reads it.

use std::collections::{BTreeMap, BTreeSet};

use crate::http::{Http, try_text};

/// One or several pages together: values of the same series are summed up.
#[derive(Debug, Default)]
pub struct Scrape {
    /// By name and labels.
    series: BTreeMap<String, BTreeMap<Labels, f64>>,
    /// What each metric says it is.
    kinds: BTreeMap<String, String>,
}

/// As they are written, by name.
pub type Labels = BTreeMap<String, String>;

impl Scrape {
    /// Reads the pages of these processes.
    ///
    /// # Panics
    /// When one has none, or what it has is not Prometheus' text format.
    pub async fn of(bases: &[String]) -> Self {
        let mut scrape = Self::default();
        for base in bases {
            let http = Http::new(std::slice::from_ref(base));
            let page = try_text(http.request(reqwest::Method::GET, "/metrics")).await;
            scrape.read(&page.expect("/metrics answers"));
        }
        scrape
    }

    fn read(&mut self, page: &str) {
        for line in page.lines().filter(|line| !line.is_empty()) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a kind");
                self.kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a series and its value");
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("a number: {line}"));
                let of_name = self.series.entry(name.to_owned()).or_default();
                *of_name.entry(parse(labels)).or_default() += value;
            }
        }
    }

    /// The metrics by their names, histograms without the endings of their parts, and what each says it is.
    pub fn kinds(&self) -> &BTreeMap<String, String> {
        &self.kinds
    }

    /// The labels of each of a metric's series, `le` of histograms left out.
    pub fn labels(&self, metric: &str) -> BTreeSet<Labels> {
        let parts = [metric.to_owned(), format!("{metric}_bucket")];
        let series = parts.iter().filter_map(|name| self.series.get(name)).flat_map(BTreeMap::keys);
        series
            .map(|labels| {
                let mut labels = labels.clone();
                labels.remove("le");
                labels
            })
            .collect()
    }

    /// The sum of all series of this name with these labels (and any others).
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let of_name = self.series.get(name).into_iter().flatten();
        let fits = |of: &Labels| {
            labels.iter().all(|(name, value)| of.get(*name).is_some_and(|known| known == value))
        };
        // An empty sum of floats is -0.
        of_name.filter(|(of, _)| fits(of)).map(|(_, value)| value).sum::<f64>() + 0.0
    }
}

/// `a="b",c="d"}`; no value of ours contains a comma or a quotation mark.
fn parse(text: &str) -> Labels {
    let pairs = text.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_summed_up() {
        let page = "# TYPE a_total counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"2\",y=\"2\"} 4\n\n\
                    # TYPE b_seconds histogram\nb_seconds_bucket{le=\"+Inf\"} 5\nb_seconds_count 5\n";
        let mut scrape = Scrape::default();
        scrape.read(page);
        scrape.read(page);
        assert_eq!(scrape.sum("a_total", &[("y", "2")]), 14.0);
        assert_eq!(scrape.sum("a_total", &[("x", "1")]), 6.0);
        assert_eq!(scrape.sum("b_seconds_count", &[]), 10.0);
        assert_eq!(scrape.sum("c", &[]), 0.0);
        assert_eq!(scrape.labels("a_total").len(), 2);
        assert_eq!(scrape.labels("b_seconds").len(), 1);
        assert_eq!(scrape.kinds()["b_seconds"], "histogram");
    }
}
