//! Which backend gets new bytes, and which copy is read: pure functions over a snapshot of the fleet.

use metastore::model::{CopyState, Room};

use crate::Routing;

/// A backend as placement sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it is in service and takes new bytes.
    pub accepts: bool,
    /// How full it is.
    pub room: Room,
    /// The largest blob that it takes, in bytes.
    pub object_bytes_max: Option<u64>,
    /// Whether the month's usage limits leave room for what the write would move.
    pub within_usage: bool,
}

/// Why no backend can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Backends are in service, but none has room.
    Full,
    /// Backends have room, but none may be asked for more this month.
    UsageSpent,
    /// No backend is in service.
    NoneInService,
}

/// The backends that can take `size` bytes, best first, as places in `candidates`.
///
/// Pack keeps the order of the configuration. Spread puts the smallest share of used and orphaned
/// bytes first; an unlimited backend counts as empty, and the order of the configuration decides
/// between equals.
pub fn choose(
    routing: Routing,
    candidates: &[Candidate],
    size: u64,
) -> Result<Vec<usize>, Refusal> {
    let takes = |candidate: &Candidate| candidate.accepts && fits(candidate, size);
    let mut places: Vec<usize> = (0..candidates.len())
        .filter(|&place| takes(&candidates[place]) && candidates[place].within_usage)
        .collect();
    if places.is_empty() {
        let accept = candidates.iter().any(|candidate| candidate.accepts);
        return Err(match (candidates.iter().any(takes), accept) {
            (true, _) => Refusal::UsageSpent,
            (false, true) => Refusal::Full,
            (false, false) => Refusal::NoneInService,
        });
    }
    match routing {
        Routing::Pack => {}
        // Shares are compared as cross products: used/limit < other used/other limit. Those without a
        // limit are all equally empty, and among them the one that holds least comes first.
        Routing::Spread => places.sort_by(|&left, &right| {
            let (left, right) = (&candidates[left].room, &candidates[right].room);
            let ((used, limit), (other_used, other_limit)) = (share(left), share(right));
            (used * other_limit)
                .cmp(&(other_used * limit))
                .then(taken(left).cmp(&taken(right)))
        }),
    }
    Ok(places)
}

/// A copy as a read sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readable {
    /// What is known of its bytes.
    pub state: CopyState,
    /// Whether the month's usage limits of its backend leave room for the read.
    pub within_usage: bool,
}

/// The copies in the order in which they are tried: those within usage limits alone, good ones first, and
/// else in the order of the catalogue.
pub fn order_copies<C>(copies: impl Iterator<Item = (C, Readable)>) -> Vec<C> {
    let mut readable: Vec<_> = copies.filter(|(_, copy)| copy.within_usage).collect();
    readable.sort_by_key(|(_, copy)| match copy.state {
        CopyState::Good => 0,
        CopyState::Suspect => 1,
        CopyState::Missing => 2,
        CopyState::Corrupt => 3,
    });
    readable.into_iter().map(|(copy, _)| copy).collect()
}

fn fits(candidate: &Candidate, size: u64) -> bool {
    candidate.room.free() >= size && candidate.object_bytes_max.is_none_or(|max| size <= max)
}

fn taken(room: &Room) -> u64 {
    room.used + room.orphan + room.reserved
}

fn share(room: &Room) -> (u128, u128) {
    match room.limit {
        None => (0, 1),
        Some(limit) => {
            let taken = taken(room);
            (u128::from(taken), u128::from(limit.max(1)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(used: u64, limit: Option<u64>) -> Candidate {
        let room = Room {
            used,
            limit,
            ..Room::default()
        };
        Candidate {
            accepts: true,
            room,
            object_bytes_max: None,
            within_usage: true,
        }
    }

    #[test]
    fn pack_fills_in_order_and_spread_fills_evenly() {
        let fleet = [
            candidate(50, Some(100)),
            candidate(10, Some(100)),
            candidate(100, Some(1000)),
        ];
        assert_eq!(choose(Routing::Pack, &fleet, 10), Ok(vec![0, 1, 2]));
        assert_eq!(choose(Routing::Spread, &fleet, 10), Ok(vec![1, 2, 0]));
        assert_eq!(choose(Routing::Pack, &fleet, 60), Ok(vec![1, 2]));
        assert_eq!(choose(Routing::Pack, &fleet, 901), Err(Refusal::Full));
        assert_eq!(choose(Routing::Pack, &fleet, 900), Ok(vec![2]));
    }

    #[test]
    fn unlimited_counts_as_room() {
        let fleet = [candidate(99, Some(100)), candidate(1 << 40, None)];
        assert_eq!(choose(Routing::Pack, &fleet, 2), Ok(vec![1]));
        assert_eq!(choose(Routing::Spread, &fleet, 1), Ok(vec![1, 0]));
    }

    #[test]
    fn spread_fills_evenly_where_nothing_is_limited() {
        let mut used = [0_u64; 3];
        for _ in 0..30 {
            let fleet = used.map(|used| candidate(used, None));
            used[choose(Routing::Spread, &fleet, 5).unwrap()[0]] += 5;
        }
        assert_eq!(used, [50; 3]);
    }

    #[test]
    fn backends_out_of_service_and_size_limits_are_respected() {
        let mut fleet = [candidate(0, None), candidate(0, None)];
        fleet[0].accepts = false;
        fleet[1].object_bytes_max = Some(10);
        assert_eq!(choose(Routing::Pack, &fleet, 10), Ok(vec![1]));
        assert_eq!(choose(Routing::Pack, &fleet, 11), Err(Refusal::Full));
        fleet[1].accepts = false;
        assert_eq!(
            choose(Routing::Pack, &fleet, 1),
            Err(Refusal::NoneInService)
        );
    }

    #[test]
    fn a_spent_backend_is_passed_over_and_named_only_where_room_is_not_the_reason() {
        let mut fleet = [candidate(0, Some(100)), candidate(0, Some(1000))];
        fleet[0].within_usage = false;
        assert_eq!(choose(Routing::Pack, &fleet, 10), Ok(vec![1]));
        fleet[1].within_usage = false;
        assert_eq!(choose(Routing::Pack, &fleet, 10), Err(Refusal::UsageSpent));
        // One is spent, and the other full.
        fleet[1].within_usage = true;
        fleet[1].room.used = 1000;
        assert_eq!(choose(Routing::Pack, &fleet, 10), Err(Refusal::UsageSpent));
        assert_eq!(choose(Routing::Pack, &fleet, 101), Err(Refusal::Full));
        fleet[0].accepts = false;
        assert_eq!(choose(Routing::Pack, &fleet, 10), Err(Refusal::Full));
    }

    #[test]
    fn copies_over_their_limit_are_left_out_and_suspect_ones_come_last() {
        let copy = |state, within_usage| Readable {
            state,
            within_usage,
        };
        let (good, suspect) = (CopyState::Good, CopyState::Suspect);
        let copies = [
            copy(suspect, true),
            copy(good, false),
            copy(good, true),
            copy(suspect, false),
            copy(good, true),
        ];
        let order = |copies: &[Readable]| order_copies(copies.iter().copied().enumerate());
        assert_eq!(order(&copies), [2, 4, 0]);
        assert_eq!(order(&copies[3..4]), [0; 0]);
    }
}
