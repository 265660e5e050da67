//! Whether what clients saw of one key could have happened one after the other.
//!
//! The checker of Wing and Gong with the memory of Lowe ("Testing for linearizability", 2017), as in
//! Porcupine: a depth-first search for an order of the operations that respects real time and in which
//! every answer is right. An operation that nobody heard the end of may have taken effect at any time
//! after its beginning, or never.

use std::collections::HashSet;

/// What a client did with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Wrote this value; no two writes of a history write the same.
    Write(u64),
    /// Removed the value.
    Delete,
    /// Read it, and found this.
    Read(Option<u64>),
}

/// An operation in time, by any clock that never goes back and that all clients share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What was done.
    pub op: Op,
    /// When it began.
    pub begun: u64,
    /// When its success was known; `None` where that never was, or a failure was said.
    pub ended: Option<u64>,
}

/// Whether some order explains the history of a key that began without a value.
///
/// A read without an end tells nothing. The time grows with the number of operations that overlap, and
/// doubles with every write without an end whose value was read.
pub fn linearizable(history: &[Event]) -> bool {
    let read: HashSet<u64> = history
        .iter()
        .filter_map(|event| match (event.op, event.ended) {
            (Op::Read(Some(value)), Some(_)) => Some(value),
            _ => None,
        })
        .collect();
    let tells = |event: &&Event| match event.op {
        Op::Read(_) => event.ended.is_some(),
        // A value that nobody read need never have been there.
        Op::Write(value) => event.ended.is_some() || read.contains(&value),
        Op::Delete => true,
    };
    let mut events: Vec<Event> = history.iter().filter(tells).copied().collect();
    events.sort_by_key(|event| event.begun);
    Search {
        done: vec![false; events.len()],
        events,
        failed: HashSet::new(),
    }
    .explains(None)
}

struct Search {
    events: Vec<Event>,
    done: Vec<bool>,
    /// Sets of operations and the value after them, from which nothing leads to the end.
    failed: HashSet<(Vec<bool>, Option<u64>)>,
}

impl Search {
    fn explains(&mut self, value: Option<u64>) -> bool {
        let missing = self.events.iter().zip(&self.done);
        let first_end = missing
            .filter(|(_, done)| !**done)
            .filter_map(|(event, _)| event.ended)
            .min();
        let Some(first_end) = first_end else {
            return true;
        };
        if self.failed.contains(&(self.done.clone(), value)) {
            return false;
        }
        for place in 0..self.events.len() {
            let event = self.events[place];
            // What began after another one had ended cannot come before it.
            if event.begun > first_end {
                break;
            }
            if self.done[place] {
                continue;
            }
            let Some(after) = apply(event.op, value) else {
                continue;
            };
            self.done[place] = true;
            if self.explains(after) {
                return true;
            }
            self.done[place] = false;
        }
        self.failed.insert((self.done.clone(), value));
        false
    }
}

/// The value after an operation; `None` where its answer would have been another one.
fn apply(op: Op, value: Option<u64>) -> Option<Option<u64>> {
    match op {
        Op::Write(written) => Some(Some(written)),
        Op::Delete => Some(None),
        Op::Read(found) => (found == value).then_some(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, Strategy, prop, prop_assert_eq, proptest};

    use super::Op::{Delete, Read, Write};
    use super::*;

    fn done(op: Op, begun: u64, ended: u64) -> Event {
        let ended = Some(ended);
        Event { op, begun, ended }
    }

    fn lost(op: Op, begun: u64) -> Event {
        let ended = None;
        Event { op, begun, ended }
    }

    #[test]
    fn histories_that_can_be_explained_are_accepted() {
        let good: [&[Event]; 7] = [
            &[],
            &[
                done(Read(None), 1, 2),
                done(Write(1), 3, 4),
                done(Read(Some(1)), 5, 6),
            ],
            // Two reads during a write may see the old and the new value, in this order.
            &[
                done(Write(1), 1, 10),
                done(Read(None), 2, 3),
                done(Read(Some(1)), 4, 5),
            ],
            // Of two writes at a time either may be the last.
            &[
                done(Write(1), 1, 4),
                done(Write(2), 2, 3),
                done(Read(Some(1)), 5, 6),
            ],
            // What nobody heard the end of may happen long after.
            &[
                lost(Write(1), 1),
                done(Write(2), 2, 3),
                done(Read(Some(2)), 4, 5),
                done(Read(Some(1)), 6, 7),
            ],
            &[lost(Write(1), 1), done(Read(None), 2, 3)],
            &[
                done(Write(1), 1, 2),
                lost(Delete, 3),
                done(Read(Some(1)), 4, 5),
                done(Read(None), 6, 7),
            ],
        ];
        for history in good {
            assert!(linearizable(history), "{history:?}");
        }
    }

    #[test]
    fn histories_that_nothing_explains_are_refused() {
        let bad: [(&str, &[Event]); 8] = [
            ("a value that nobody wrote", &[done(Read(Some(1)), 1, 2)]),
            (
                "a value before it was written",
                &[done(Read(Some(1)), 1, 2), done(Write(1), 3, 4)],
            ),
            (
                "a lost write",
                &[done(Write(1), 1, 2), done(Read(None), 3, 4)],
            ),
            (
                "a stale read",
                &[
                    done(Write(1), 1, 2),
                    done(Write(2), 3, 4),
                    done(Read(Some(1)), 5, 6),
                ],
            ),
            (
                "back in time during one write",
                &[
                    done(Write(1), 1, 10),
                    done(Read(Some(1)), 2, 3),
                    done(Read(None), 4, 5),
                ],
            ),
            (
                "a deleted value that came back",
                &[
                    done(Write(1), 1, 2),
                    done(Delete, 3, 4),
                    done(Read(Some(1)), 5, 6),
                ],
            ),
            (
                "a write without an end that happened twice",
                &[
                    lost(Write(1), 1),
                    done(Read(Some(1)), 2, 3),
                    done(Write(2), 4, 5),
                    done(Read(Some(1)), 6, 7),
                ],
            ),
            (
                "two readers that do not agree on an order",
                &[
                    done(Write(1), 1, 20),
                    done(Write(2), 1, 20),
                    done(Read(Some(1)), 2, 3),
                    done(Read(Some(2)), 4, 5),
                    done(Read(Some(1)), 6, 7),
                ],
            ),
        ];
        for (what, history) in bad {
            assert!(!linearizable(history), "{what}: {history:?}");
        }
    }

    /// Every order of every subset that contains what ended.
    fn by_force(history: &[Event], done: &mut Vec<usize>, value: Option<u64>) -> bool {
        let missing = |place: &usize| !done.contains(place);
        let rest: Vec<usize> = (0..history.len()).filter(missing).collect();
        if rest.iter().all(|place| history[*place].ended.is_none()) {
            return true;
        }
        for place in &rest {
            let event = history[*place];
            let later = |other: &usize| history[*other].ended.is_some_and(|end| end < event.begun);
            let unheard = matches!(event.op, Read(_)) && event.ended.is_none();
            if unheard || rest.iter().any(later) {
                continue;
            }
            let Some(after) = apply(event.op, value) else {
                continue;
            };
            done.push(*place);
            if by_force(history, done, after) {
                return true;
            }
            done.pop();
        }
        false
    }

    fn histories() -> impl Strategy<Value = Vec<Event>> {
        let event = (0..8u8, 0..20u64, 1..8u64, prop::bool::weighted(0.8));
        prop::collection::vec(event, 0..7).prop_map(|events| {
            let written = |place: usize| u64::try_from(place).unwrap();
            events
                .iter()
                .enumerate()
                .map(|(place, (kind, begun, length, ends))| Event {
                    op: match kind {
                        0..=2 => Write(written(place)),
                        3 => Delete,
                        4 => Read(None),
                        other => Read(Some(u64::from(*other) - 5)),
                    },
                    begun: 2 * begun,
                    ended: ends.then_some(2 * (begun + length) + 1),
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn the_search_agrees_with_brute_force(history in histories()) {
            let expected = by_force(&history, &mut Vec::new(), None);
            prop_assert_eq!(linearizable(&history), expected);
        }
    }
}
