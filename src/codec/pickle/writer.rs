//! Nodes as opcodes, from which Python builds the same objects.
//!
//! Follows `Pickler` of Python's own `Lib/pickle.py`: an object is remembered as soon as it can be, and
//! fetched where it occurs again. Only what does occur again is remembered, so the result is shorter than
//! Python's own. The walk keeps its own stack.

use super::opcodes::{BATCH, MAX_MARKS, Opcodes};
use super::{PickleError, PickleErrorKind};
use crate::codec::graph::{Graph, Maker, Node, NodeId, Span, Step};

type Pairs<'a> = Option<&'a [(NodeId, NodeId)]>;

/// Writes what `root` leads to; `pairs` takes the place of the pairs of the dict that `root` is.
pub(super) fn write(graph: &Graph, root: NodeId, pairs: Pairs<'_>) -> Result<Vec<u8>, PickleError> {
    let protocol = graph.protocol().max(2);
    let (shared, again) = match shared(graph, root, pairs) {
        Some(shared) => (shared, vec![false; graph.len()]),
        None => (vec![true; graph.len()], arguments(graph, root, pairs)),
    };
    let mut writer = Writer {
        graph,
        root,
        pairs,
        to: Opcodes::new(protocol, 0),
        shared,
        again,
        unfinished: vec![false; graph.len()],
        memo: vec![u32::MAX; graph.len()],
        marks: 0,
        open: Vec::new(),
        limit: graph.byte_len().saturating_mul(8).saturating_add(graph.len() * 64 + 4096),
    };
    writer.visit(root);
    while let Some(frame) = writer.open.pop() {
        writer.advance(frame);
        if writer.to.out.len() > writer.limit {
            return Err(PickleError { kind: PickleErrorKind::TooLarge, offset: 0 });
        }
        // What this reader would refuse is not written.
        if writer.marks > MAX_MARKS {
            return Err(PickleError { kind: PickleErrorKind::TooDeep, offset: 0 });
        }
    }
    writer.to.push(b'.');
    Ok(writer.to.out)
}

/// Which nodes have to be remembered: those that occur more than once.
///
/// An object that cannot be remembered before its parts are written, a tuple for one, and contains itself
/// is begun twice. Then everything is remembered, as Python does it, so that no part is written twice, and
/// the answer is nothing.
fn shared(graph: &Graph, root: NodeId, pairs: Pairs<'_>) -> Option<Vec<bool>> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Unseen,
        Open,
        Done,
    }
    if let Some(shared) = referred_to_twice(graph, root, pairs) {
        return Some(shared);
    }
    let mut states = vec![State::Unseen; graph.len()];
    let mut shared = vec![false; graph.len()];
    // What is to be entered, and what is left behind when its parts are done.
    let mut walk = vec![(root, true)];
    while let Some((id, enter)) = walk.pop() {
        let state = &mut states[id.index()];
        if !enter {
            *state = State::Done;
            continue;
        }
        if *state != State::Unseen {
            if graph.node(id).is_late() && *state == State::Open {
                return None;
            }
            shared[id.index()] = true;
            continue;
        }
        *state = State::Open;
        walk.push((id, false));
        if let (true, Some(pairs)) = (id == root, pairs) {
            walk.extend(pairs.iter().flat_map(|&(key, value)| [(key, true), (value, true)]));
        } else {
            graph.node(id).each_child(|child| walk.push((child, true)));
        }
    }
    Some(shared)
}

/// The same where every object can be remembered before its parts, as in all that JSON can hold: then it
/// takes half as long.
fn referred_to_twice(graph: &Graph, root: NodeId, pairs: Pairs<'_>) -> Option<Vec<bool>> {
    let mut once = vec![false; graph.len()];
    let mut twice = vec![false; graph.len()];
    let mut open = vec![root];
    once[root.index()] = true;
    while let Some(id) = open.pop() {
        let mut refer = |part: NodeId| {
            if std::mem::replace(&mut once[part.index()], true) {
                twice[part.index()] = true;
            } else if graph.node(part).has_parts() {
                open.push(part);
            }
        };
        match (graph.node(id), pairs) {
            (_, Some(pairs)) if id == root => pairs.iter().for_each(|&(key, value)| {
                refer(key);
                refer(value);
            }),
            (node, _) if node.is_late() => return None,
            (node, _) => node.each_child(refer),
        }
    }
    Some(twice)
}

/// Lists and dicts that are nothing but arguments of one call, and pairs in those.
///
/// Python makes them anew whenever it pickles the object. So when the object is begun a second time, among
/// its own arguments, they have to be complete: a set takes what is in the list at that moment.
fn arguments(graph: &Graph, root: NodeId, pairs: Pairs<'_>) -> Vec<bool> {
    let mut seen = vec![false; graph.len()];
    let mut uses = vec![0_u32; graph.len()];
    let mut arguments = Vec::new();
    let mut walk = vec![root];
    while let Some(id) = walk.pop() {
        uses[id.index()] = uses[id.index()].saturating_add(1);
        if std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        if let (true, Some(pairs)) = (id == root, pairs) {
            walk.extend(pairs.iter().flat_map(|&(key, value)| [key, value]));
            continue;
        }
        let node = graph.node(id);
        node.each_child(|child| walk.push(child));
        if let Node::Made(made) = node
            && let Maker::Call { args, .. } = made.by
            && let Node::Tuple(args) = graph.node(args)
        {
            arguments.extend(args);
        }
    }
    let mut again = vec![false; graph.len()];
    for id in arguments {
        let once = |id: NodeId| uses[id.index()] == 1;
        match graph.node(id) {
            Node::List(items) if once(id) => {
                again[id.index()] = true;
                for &item in items {
                    again[item.index()] |= once(item) && matches!(graph.node(item), Node::List(_));
                }
            }
            Node::Dict(_) if once(id) => again[id.index()] = true,
            _ => {}
        }
    }
    again
}

/// An object whose parts are being written.
#[derive(Clone, Copy)]
struct Frame {
    id: NodeId,
    /// How many parts are done.
    next: usize,
    /// The step at which the opcode that is open began.
    batch: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The parts of a container, or what an object is made of.
    Parts,
    /// What is done to an object after it was made.
    Steps,
}

struct Writer<'a> {
    graph: &'a Graph,
    root: NodeId,
    pairs: Pairs<'a>,
    to: Opcodes,
    shared: Vec<bool>,
    /// What is written once more if it occurs before it is finished.
    again: Vec<bool>,
    unfinished: Vec<bool>,
    /// The number under which a node is remembered.
    memo: Vec<u32>,
    /// How many marks are on the stack of who reads this.
    marks: usize,
    open: Vec<Frame>,
    limit: usize,
}

/// Whether a step goes into the same opcode as the one before, of `begun` so far.
fn joins(before: Step, step: Option<Step>, begun: usize) -> bool {
    let same = matches!(
        (before, step),
        (Step::Append(_), Some(Step::Append(_)))
            | (Step::Add(_), Some(Step::Add(_)))
            | (Step::SetItem(..), Some(Step::SetItem(..)))
    );
    same && begun < BATCH
}

impl<'a> Writer<'a> {
    /// Writes an object, or begins to.
    fn visit(&mut self, id: NodeId) {
        let again = self.unfinished[id.index()] && std::mem::take(&mut self.again[id.index()]);
        if !again && self.fetch(id) {
            return;
        }
        let graph = self.graph;
        match graph.node(id) {
            Node::None => self.to.push(b'N'),
            Node::Bool(value) => self.to.bool(*value),
            Node::Int(number) => self.to.int(*number),
            Node::Long(span) => self.to.long(graph.bytes_of(*span)),
            Node::Float(number) => self.to.float(*number),
            Node::Str(span) => {
                self.to.text(graph.bytes_of(*span));
                self.remember(id);
            }
            Node::Py2Str(span) => {
                self.to.counted(graph.bytes_of(*span), b'U', b'T');
                self.remember(id);
            }
            Node::Bytes(span) => {
                self.to.counted(graph.bytes_of(*span), b'C', b'B');
                self.remember(id);
            }
            Node::ByteArray(span) => {
                let bytes = graph.bytes_of(*span);
                self.to.push(0x96);
                self.to.out.extend((bytes.len() as u64).to_le_bytes());
                self.to.out.extend(bytes);
                self.remember(id);
            }
            Node::Global { module, name } => {
                self.global(*module, *name);
                self.remember(id);
            }
            Node::List(_) => self.begin(id, b']'),
            Node::Dict(_) => self.begin(id, b'}'),
            Node::Set(_) => self.begin(id, 0x8f),
            Node::Tuple(items) if items.is_empty() => self.to.push(b')'),
            Node::Tuple(_) | Node::FrozenSet(_) | Node::Made(_) => {
                self.open.push(Frame { id, next: 0, batch: 0, stage: Stage::Parts });
            }
        }
    }

    /// Begins a container, which can be remembered before it is filled.
    fn begin(&mut self, id: NodeId, opcode: u8) {
        self.to.push(opcode);
        self.remember(id);
        self.unfinished[id.index()] = true;
        self.open.push(Frame { id, next: 0, batch: 0, stage: Stage::Parts });
    }

    /// Goes on with an object: one more part of it, or its end.
    fn advance(&mut self, frame: Frame) {
        let graph = self.graph;
        match (graph.node(frame.id), frame.stage) {
            (Node::List(items), _) => self.fill(frame, items.len(), b'a', b'e', |at| [items[at]]),
            (Node::Set(items), _) => self.fill(frame, items.len(), 0, 0x90, |at| [items[at]]),
            (Node::Dict(pairs), _) => {
                let pairs = match self.pairs {
                    Some(other) if frame.id == self.root => other,
                    _ => pairs,
                };
                self.fill(frame, pairs.len(), b's', b'u', |at| [pairs[at].0, pairs[at].1]);
            }
            (Node::Tuple(items), _) => self.tuple(frame, items),
            (Node::FrozenSet(items), _) => self.frozen_set(frame, items),
            (Node::Made(made), Stage::Parts) => self.make(frame, made.by),
            (Node::Made(made), Stage::Steps) => self.change(frame, &made.steps),
            _ => {}
        }
    }

    /// One more entry of a container. A last entry alone gets the opcode for one; 0 if there is none.
    fn fill<const N: usize>(
        &mut self,
        frame: Frame,
        length: usize,
        one: u8,
        many: u8,
        parts: impl Fn(usize) -> [NodeId; N],
    ) {
        // `next` counts parts, of which an entry has one or two.
        let (entry, part) = (frame.next / N, frame.next % N);
        let alone = |entry: usize| one != 0 && entry.is_multiple_of(BATCH) && entry + 1 == length;
        if part == 0 && entry > 0 {
            let before = entry - 1;
            if alone(before) {
                self.to.push(one);
            } else if entry == length || entry.is_multiple_of(BATCH) {
                self.close_mark(many);
            }
        }
        if entry == length {
            self.unfinished[frame.id.index()] = false;
            return;
        }
        if part == 0 && entry.is_multiple_of(BATCH) && !alone(entry) {
            self.mark();
        }
        self.open.push(Frame { next: frame.next + 1, ..frame });
        self.visit(parts(entry)[part]);
    }

    fn tuple(&mut self, frame: Frame, items: &'a [NodeId]) {
        let long = items.len() > 3;
        if frame.next == 0 && long {
            self.mark();
        }
        if let Some(&item) = items.get(frame.next) {
            self.open.push(Frame { next: frame.next + 1, ..frame });
            self.visit(item);
            return;
        }
        // A tuple that contains itself has been written by now, as part of one of its items.
        if self.is_remembered(frame.id) {
            if long {
                self.close_mark(b'1');
            } else {
                self.to.out.extend(std::iter::repeat_n(b'0', items.len()));
            }
            self.fetch(frame.id);
            return;
        }
        match items.len() {
            1 => self.to.push(0x85),
            2 => self.to.push(0x86),
            3 => self.to.push(0x87),
            _ => self.close_mark(b't'),
        }
        self.remember(frame.id);
    }

    fn frozen_set(&mut self, frame: Frame, items: &'a [NodeId]) {
        if frame.next == 0 {
            self.mark();
        }
        if let Some(&item) = items.get(frame.next) {
            self.open.push(Frame { next: frame.next + 1, ..frame });
            self.visit(item);
        } else if self.is_remembered(frame.id) {
            self.close_mark(b'1');
            self.fetch(frame.id);
        } else {
            self.close_mark(0x91);
            self.remember(frame.id);
        }
    }

    /// What an object is made of, and the opcode that makes it.
    fn make(&mut self, frame: Frame, by: Maker) {
        let instance_args = |args| match self.graph.node(args) {
            Node::Tuple(items) => &items[..],
            _ => &[],
        };
        let part = match by {
            Maker::Call { callable: first, args } | Maker::New { class: first, args } => {
                [first, args].get(frame.next).copied()
            }
            Maker::NewEx { class, args, kwargs } => [class, args, kwargs].get(frame.next).copied(),
            Maker::Instance { class, args } => match frame.next {
                0 => {
                    self.mark();
                    Some(class)
                }
                next => instance_args(args).get(next - 1).copied(),
            },
        };
        if let Some(part) = part {
            self.open.push(Frame { next: frame.next + 1, ..frame });
            self.visit(part);
            return;
        }
        match by {
            Maker::Call { .. } => self.to.push(b'R'),
            Maker::New { .. } => self.to.push(0x81),
            Maker::NewEx { .. } => self.to.push(0x92),
            Maker::Instance { .. } => self.close_mark(b'o'),
        }
        // As with tuples: it was part of what it is made of, and is there with all its changes.
        if self.is_remembered(frame.id) {
            self.to.push(b'0');
            self.fetch(frame.id);
            return;
        }
        self.remember(frame.id);
        self.open.push(Frame { next: 0, stage: Stage::Steps, ..frame });
    }

    /// The changes to an object; `next` counts parts, of which there is room for two in each step.
    fn change(&mut self, mut frame: Frame, steps: &'a [Step]) {
        let (index, part) = (frame.next / 2, frame.next % 2);
        let step = steps.get(index).copied();
        if part == 0 {
            let begun = index - frame.batch;
            let before = index.checked_sub(1).map(|before| steps[before]);
            if let Some(before) = before.filter(|&before| !joins(before, step, begun)) {
                match (before, begun) {
                    (Step::SetState(_), _) => self.to.push(b'b'),
                    (Step::Call(_), _) => self.to.push(b'0'),
                    (Step::Append(_), 1) => self.to.push(b'a'),
                    (Step::Append(_), _) => self.close_mark(b'e'),
                    (Step::SetItem(..), 1) => self.to.push(b's'),
                    (Step::SetItem(..), _) => self.close_mark(b'u'),
                    (Step::Add(_), _) => self.close_mark(0x90),
                }
                frame.batch = index;
            }
            let begins = frame.batch == index;
            if let Some(step) = step.filter(|_| begins) {
                let alone = !joins(step, steps.get(index + 1).copied(), 1);
                if matches!(step, Step::Add(_)) || !alone {
                    self.mark();
                }
            }
        }
        let part = match (step, part) {
            (None, _) => return,
            (Some(Step::SetItem(key, _)), 0) => {
                frame.next += 1;
                key
            }
            (Some(Step::SetItem(_, value)), _) => {
                frame.next += 1;
                value
            }
            (
                Some(
                    Step::Append(item) | Step::Add(item) | Step::SetState(item) | Step::Call(item),
                ),
                _,
            ) => {
                frame.next += 2;
                item
            }
        };
        self.open.push(frame);
        self.visit(part);
    }

    fn mark(&mut self) {
        self.marks += 1;
        self.to.push(b'(');
    }

    /// An opcode that takes everything down to the last mark.
    fn close_mark(&mut self, opcode: u8) {
        self.marks = self.marks.saturating_sub(1);
        self.to.push(opcode);
    }

    fn is_remembered(&self, id: NodeId) -> bool {
        self.memo[id.index()] != u32::MAX
    }

    /// Fetches an object if it is remembered.
    fn fetch(&mut self, id: NodeId) -> bool {
        let number = self.memo[id.index()];
        if number == u32::MAX {
            return false;
        }
        self.to.fetch(number);
        true
    }

    /// Remembers the object on top of the stack, if it occurs again.
    fn remember(&mut self, id: NodeId) {
        if self.shared[id.index()] {
            self.memo[id.index()] = self.to.remember();
        }
    }

    fn global(&mut self, module: Span, name: Span) {
        let graph = self.graph;
        // A line feed would end the name early and begin an opcode, and a line is read as UTF-8.
        let is_line = |span| {
            let bytes = graph.bytes_of(span);
            !bytes.contains(&b'\n') && std::str::from_utf8(bytes).is_ok()
        };
        if self.to.protocol >= 4 || !is_line(module) || !is_line(name) {
            self.to.text(graph.bytes_of(module));
            self.to.text(graph.bytes_of(name));
            self.to.push(0x93);
        } else {
            self.to.push(b'c');
            for span in [module, name] {
                self.to.out.extend(graph.bytes_of(span));
                self.to.push(b'\n');
            }
        }
    }
}
