//! Which backend gets new bytes: pure functions over a snapshot of the fleet.

use metastore::model::Room;

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
}

/// Why no backend can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Backends are in service, but none has room.
    Full,
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
    let mut places: Vec<usize> = (0..candidates.len())
        .filter(|&place| candidates[place].accepts && fits(&candidates[place], size))
        .collect();
    if places.is_empty() {
        return match candidates.iter().any(|candidate| candidate.accepts) {
            true => Err(Refusal::Full),
            false => Err(Refusal::NoneInService),
        };
    }
    match routing {
        Routing::Pack => {}
        // Shares are compared as cross products: used/limit < other used/other limit.
        Routing::Spread => places.sort_by(|&left, &right| {
            let (used, limit) = share(&candidates[left].room);
            let (other_used, other_limit) = share(&candidates[right].room);
            (used * other_limit).cmp(&(other_used * limit))
        }),
    }
    Ok(places)
}

fn fits(candidate: &Candidate, size: u64) -> bool {
    candidate.room.free() >= size && candidate.object_bytes_max.is_none_or(|max| size <= max)
}

fn share(room: &Room) -> (u128, u128) {
    match room.limit {
        None => (0, 1),
        Some(limit) => {
            let taken = room.used + room.orphan + room.reserved;
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
}
