//! Records a workload: the filesystem and the model run side by side, and must agree.

use crate::compare::difference;
use crate::dump::dump;
use crate::judge::guard;
use crate::oracle::{InPlace, Tree};
use crate::session::{DevicePages, Session, format, quarantine};
use crate::trace::Trace;
use crate::workload::{Op, Workload};
use udax_fs::FsError;
use udax_mm::image::{Image, ImageMedia};
use udax_mm::recorder::{LeftOut, Mark, Recorder};
use udax_mm::sync::Arc;

/// A workload that ran, with everything needed to judge its crash images.
#[derive(Debug)]
pub struct Recording {
    /// What it did to the medium, until the pool was closed.
    pub trace: Trace,
    /// The model's tree before each operation, and after the last.
    pub trees: Vec<Arc<Tree>>,
    /// The model's trees between the steps of each operation.
    pub between: Vec<Vec<Arc<Tree>>>,
    /// What each operation changes in place.
    pub in_place: Vec<Option<InPlace>>,
    /// The pages that a crash at the moments of `trees` leaves in quarantine.
    pub pinned: Vec<Arc<DevicePages>>,
    /// What the medium held at the moments of `trees`, if every store persisted.
    pub images: Vec<Image>,
}

/// Runs `workload`, leaving out one flush or fence if told so.
///
/// # Errors
///
/// Where the filesystem and the model disagree without any crash.
pub fn record(workload: &Workload, left_out: Option<LeftOut>) -> Result<Recording, String> {
    guard(|| {
        let SetUp { image: start, tree, left } = set_up(workload)?;
        let recorder = Arc::new(recorder(start.clone(), left_out));
        let mut session = Session::start(recorder.clone()).map_err(failed("mount"))?;
        let mut recording = Recording {
            trace: Trace { start, events: Vec::new() },
            trees: vec![Arc::new(tree)],
            between: Vec::new(),
            in_place: Vec::new(),
            pinned: vec![Arc::new(left.clone())],
            images: vec![recorder.image()],
        };
        let mut left = left;
        for (number, op) in workload.ops.iter().enumerate() {
            recorder.mark(Mark::Begin(number));
            let tree = recording.apply(&mut session, op)?;
            recorder.mark(Mark::End(number));
            recording.trees.push(Arc::new(tree));
            recording.images.push(recorder.image());
            if matches!(op, Op::Release | Op::Format) {
                left.clear();
            }
            let pinned = left.union(&session.pinned()).copied().collect();
            recording.pinned.push(Arc::new(pinned));
            if *op != Op::Format && quarantine(session.filesystem()) != left {
                return Err(format!("{op}: other pages are in quarantine"));
            }
        }
        recording.compare(&session)?;
        recorder.mark(Mark::Begin(workload.ops.len()));
        session.end().map_err(failed("unmount"))?;
        recording.trace.events = recorder.take_events();
        Ok(recording)
    })
}

/// A recorder that leaves out one flush or fence if told so.
pub fn recorder(image: Image, left_out: Option<LeftOut>) -> Recorder {
    match left_out {
        Some(left_out) => Recorder::leaving_out(image, left_out),
        None => Recorder::new(image),
    }
}

impl Recording {
    fn apply(&mut self, session: &mut Session, op: &Op) -> Result<Tree, String> {
        let mut tree = Tree::clone(self.trees.last().expect("there is a tree before the first"));
        self.between.push(tree.between(op));
        self.in_place.push(tree.in_place(op));
        step(session, &mut tree, op)?;
        Ok(tree)
    }

    fn compare(&self, session: &Session) -> Result<(), String> {
        let tree = self.trees.last().expect("there is a tree before the first");
        let found = dump(session.filesystem()).map_err(failed("reading"))?;
        difference(tree, &found).map_err(|what| format!("without any crash: {what}"))?;
        session.filesystem().verify().map_err(|what| format!("without any crash: {what}"))
    }
}

/// Where a workload begins.
struct SetUp {
    image: Image,
    tree: Tree,
    /// The pages of pins that the process before it died with.
    left: DevicePages,
}

/// Formats a pool and carries out the operations that come before; closes it, so that everything
/// is durable. With pins it dies instead, and nothing is in flight.
fn set_up(workload: &Workload) -> Result<SetUp, String> {
    let media = Arc::new(ImageMedia::new(Image::zeroed(workload.pages * 4096)));
    format(media.clone(), [7; 16]).map_err(failed("format"))?;
    let mut session = Session::start(media.clone()).map_err(failed("mount"))?;
    let mut tree = Tree::empty();
    for op in &workload.setup {
        step(&mut session, &mut tree, op)?;
    }
    let left = session.pinned();
    if left.is_empty() {
        session.end().map_err(failed("unmount"))?;
        return Ok(SetUp { image: media.image(), tree, left });
    }
    Ok(SetUp { image: media.image(), tree, left })
}

/// Both must do `op`, or both refuse it.
fn step(session: &mut Session, tree: &mut Tree, op: &Op) -> Result<(), String> {
    let done = session.run(op);
    if matches!(op, Op::Full(_)) && !matches!(done, Err(FsError::NoSpace { .. })) {
        return Err(format!("{op} ended with {done:?}"));
    }
    match (done, tree.apply(op)) {
        (Ok(()), Ok(())) | (Err(_), Err(_)) => Ok(()),
        (Err(error), Ok(())) => Err(format!("{op}: {error}; the model does it")),
        (Ok(()), Err(_)) => Err(format!("{op} was done; the model refuses it")),
    }
}

fn failed(what: &'static str) -> impl Fn(FsError) -> String {
    move |error| format!("{what}: {error}")
}
