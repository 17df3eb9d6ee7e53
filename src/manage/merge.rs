//! Several lists, each newest first, read as one. None is read before the walk reaches its newest.

use std::collections::{BTreeMap, VecDeque};

use crate::domain::id::StreamId;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<S, T> {
    /// A page of a source is wanted, from this place back; it is to be given to [`Merged::fill`].
    Read(S, StreamId),
    /// Something, and where it stands.
    Found((StreamId, S), T),
    End,
}

/// The lists, by their sources. Of what stands at the same place in two, the greater source comes first.
pub(super) struct Merged<S, T> {
    /// What was read of each source, by the place before which nothing of it comes.
    lanes: BTreeMap<(StreamId, S), VecDeque<(StreamId, T)>>,
}

impl<S: Copy + Ord, T> Merged<S, T> {
    /// Of each source what stands at a place or before it, and behind `cursor`.
    pub fn new(sources: impl IntoIterator<Item = (S, StreamId)>, cursor: Option<(StreamId, S)>) -> Self {
        let lane = |(source, newest): (S, StreamId)| {
            let behind = match cursor {
                None => StreamId::MAX,
                Some((at, last)) if source < last => at,
                Some((at, _)) => at.previous()?,
            };
            Some(((newest.min(behind), source), VecDeque::new()))
        };
        Self { lanes: sources.into_iter().filter_map(lane).collect() }
    }

    pub fn step(&mut self) -> Step<S, T> {
        let Some(((first, source), mut lane)) = self.lanes.pop_last() else { return Step::End };
        let Some((at, item)) = lane.pop_front() else { return Step::Read(source, first) };
        if let Some(next) = lane.front().map(|(next, _)| *next).or_else(|| at.previous()) {
            self.lanes.insert((next, source), lane);
        }
        Step::Found((at, source), item)
    }

    /// Takes in the page that [`Step::Read`] asked for; an empty one is the source's end.
    pub fn fill(&mut self, source: S, page: VecDeque<(StreamId, T)>) {
        if let Some((at, _)) = page.front() {
            self.lanes.insert((*at, source), page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> StreamId {
        StreamId { ms, seq: 0 }
    }

    /// What a walk over two lists finds, read in pages of two.
    fn walk(lists: [&[u64]; 2], cursor: Option<(StreamId, usize)>) -> Vec<(StreamId, usize)> {
        let mut merged = Merged::new([(0, at(100)), (1, at(100))], cursor);
        let mut found = Vec::new();
        loop {
            match merged.step() {
                Step::Read(source, first) => {
                    let page = lists[source].iter().map(|ms| (at(*ms), ())).filter(|(place, ())| *place <= first);
                    merged.fill(source, page.take(2).collect());
                }
                Step::Found(place, ()) => found.push(place),
                Step::End => return found,
            }
        }
    }

    #[test]
    fn two_lists_are_one_from_any_place_on() {
        let lists: [&[u64]; 2] = [&[9, 7, 5, 4, 1], &[8, 7, 3]];
        let whole = walk(lists, None);
        let expected = [(9, 0), (8, 1), (7, 1), (7, 0), (5, 0), (4, 0), (3, 1), (1, 0)];
        assert_eq!(whole, expected.map(|(ms, source)| (at(ms), source)));
        for (index, place) in whole.iter().enumerate() {
            assert_eq!(walk(lists, Some(*place)), whole[index + 1..], "behind {place:?}");
        }
        assert!(walk([&[], &[]], None).is_empty());
    }
}
