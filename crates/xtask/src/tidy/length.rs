//! The longest files and functions: reported, never refused. Length wants a reason or a cut.

use super::sources::Source;

const REPORTED: usize = 10;
const FILE_LINES_AIM: usize = 500;
const FUNCTION_LINES_AIM: usize = 70;

/// Prints the ten longest of each, counting only what the program compiles.
pub(super) fn report(sources: &[Source]) {
    let aim = format!("files (aim: {FILE_LINES_AIM} production lines)");
    print("longest", &aim, &longest_files(sources));
    let aim = format!("functions (aim: {FUNCTION_LINES_AIM} lines)");
    print("longest", &aim, &longest_functions(sources));
}

fn longest_files(sources: &[Source]) -> Vec<(usize, String)> {
    longest(
        sources
            .iter()
            .map(|source| (source.production_lines(), source.path.clone())),
    )
}

fn longest_functions(sources: &[Source]) -> Vec<(usize, String)> {
    longest(sources.iter().flat_map(|source| {
        source.facts.functions.iter().map(|function| {
            let place = format!("{}:{}: {}", source.path, function.line, function.name);
            (function.lines, place)
        })
    }))
}

fn longest(all: impl Iterator<Item = (usize, String)>) -> Vec<(usize, String)> {
    let mut all: Vec<_> = all.collect();
    all.sort_by(|a, b| b.cmp(a));
    all.truncate(REPORTED);
    all
}

fn print(what: &str, of: &str, lengths: &[(usize, String)]) {
    println!("{what} {of}:");
    for (lines, place) in lengths {
        println!("{lines:>6}  {place}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_longest_come_first() {
        let all = (0..50).map(|n| (n, format!("f{n}")));
        let found = longest(all);
        assert_eq!(found.len(), REPORTED);
        assert_eq!(found[0], (49, "f49".to_owned()));
        assert_eq!(found[9].0, 40);
    }
}
