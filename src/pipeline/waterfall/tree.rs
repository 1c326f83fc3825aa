//! The order of spans in a drawing and the lines that tie them together.
//!
//! Linear in the number of spans but for sorting; nothing recurses, so depth is no danger; every span comes out exactly
//! once, whatever the ids say.

use std::collections::HashMap;

use super::{Entry, has_remote_parent, times};

/// Why a span stands where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// At the top: it has no parent, or one in another process.
    Root,
    /// Beneath its parent.
    Child,
    /// At the top: its parent, of the same process, is not in the data.
    Orphan,
    /// At the top: following parents comes back to it.
    Circle,
}

/// One span in its place.
#[derive(Debug)]
pub(super) struct Row {
    /// The span's index in the trace.
    pub(super) index: usize,
    /// Its parent's, for a child.
    pub(super) parent: Option<usize>,
    pub(super) place: Place,
    /// What stands before the name: `│  ├─ `.
    pub(super) lead: String,
    /// What stands under the name's beginning, before anything below: `│  │  `.
    pub(super) guide: String,
    pub(super) has_children: bool,
}

/// The spans of a trace, parents before children, siblings by start. Deeper than `max_depth` the lines stop growing.
pub(super) fn rows(trace: &[Entry<'_>], max_depth: usize) -> Vec<Row> {
    let mut index_of: HashMap<&[u8], usize> = HashMap::with_capacity(trace.len());
    for (index, entry) in trace.iter().enumerate() {
        if !entry.span.span_id.is_empty() {
            index_of.entry(&entry.span.span_id).or_insert(index);
        }
    }
    let mut by_start: Vec<usize> = (0..trace.len()).collect();
    by_start.sort_by_key(|index| times(trace[*index].span).0);

    let mut children = vec![Vec::new(); trace.len()];
    let mut tops = Vec::new();
    for &index in &by_start {
        let span = trace[index].span;
        // An empty parent id is in no map.
        match index_of.get(span.parent_span_id.as_slice()) {
            Some(&parent) => children[parent].push(index),
            None if span.parent_span_id.is_empty() || has_remote_parent(span) => {
                tops.push((index, Place::Root));
            }
            None => tops.push((index, Place::Orphan)),
        }
    }

    let mut walk = Walk {
        children,
        max_depth,
        seen: vec![false; trace.len()],
        rows: Vec::with_capacity(trace.len()),
    };
    for (index, place) in tops {
        walk.descend(index, place);
    }
    for index in by_start {
        // Reachable from no top: its ancestors form a circle, which is cut here.
        if !walk.seen[index] {
            walk.descend(index, Place::Circle);
        }
    }
    walk.rows
}

struct Walk {
    children: Vec<Vec<usize>>,
    max_depth: usize,
    seen: Vec<bool>,
    rows: Vec<Row>,
}

impl Walk {
    fn descend(&mut self, top: usize, place: Place) {
        let mut next = vec![Row {
            index: top,
            parent: None,
            place,
            lead: String::new(),
            guide: String::new(),
            has_children: false,
        }];
        let mut depths = vec![0];
        self.seen[top] = true;
        while let (Some(mut row), Some(depth)) = (next.pop(), depths.pop()) {
            let mut children = std::mem::take(&mut self.children[row.index]);
            children.retain(|child| !std::mem::replace(&mut self.seen[*child], true));
            row.has_children = !children.is_empty();
            // The last is pushed first, to be popped last.
            for (place, &child) in children.iter().rev().enumerate() {
                let (lead, guide) = if depth == self.max_depth {
                    (format!("{}⋯ ", row.guide), row.guide.clone())
                } else if place == 0 {
                    (format!("{}└─ ", row.guide), format!("{}   ", row.guide))
                } else {
                    (format!("{}├─ ", row.guide), format!("{}│  ", row.guide))
                };
                next.push(Row {
                    index: child,
                    parent: Some(row.index),
                    place: Place::Child,
                    lead,
                    guide,
                    has_children: false,
                });
                depths.push((depth + 1).min(self.max_depth));
            }
            self.rows.push(row);
        }
    }
}
