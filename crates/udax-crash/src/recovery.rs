//! Recoveries as traces, so that they can be crashed in turn.

use crate::dump::dump;
use crate::epoch::{Choice, Epoch, Phase, Rest};
use crate::oracle::Tree;
use crate::record::recorder;
use crate::session::mount;
use crate::trace::Trace;
use udax_mm::image::Image;
use udax_mm::recorder::{Event, LeftOut, Mark};
use udax_mm::sync::Arc;

/// The recovery of `image` after a power failure: all of it is durable when recovery begins.
///
/// # Errors
///
/// Why it could not be mounted.
pub fn after_power_failure(image: Image, left_out: Option<LeftOut>) -> Result<Trace, String> {
    let (events, _) = recover(image.clone(), 0, left_out)?;
    Ok(Trace { start: image, events })
}

/// The recovery by another process after the one of `trace` died at `epoch`, with the tree that it
/// found. The stores of the dead process are all visible, and still in flight.
///
/// # Errors
///
/// Why it could not be mounted.
pub fn after_death(
    trace: &Trace,
    epoch: &Epoch,
    left_out: Option<LeftOut>,
) -> Result<(Trace, Tree), String> {
    let (Phase::Running(op) | Phase::Ended(op)) = epoch.phase else {
        return Err("nothing was running".to_owned());
    };
    let (image, _) = epoch.image(&Choice { rest: Rest::Everything, except: Vec::new() });
    let (recovery, tree) = recover(image, op, left_out)?;
    let events = [&trace.events[..epoch.event], &recovery].concat();
    Ok((Trace { start: trace.start.clone(), events }, tree))
}

/// Mounts `image`, and logs that as the operation `op`.
fn recover(
    image: Image,
    op: usize,
    left_out: Option<LeftOut>,
) -> Result<(Vec<Event>, Tree), String> {
    let recorder = Arc::new(recorder(image, left_out));
    recorder.mark(Mark::Begin(op));
    let (fs, _) = mount(recorder.clone()).map_err(|error| error.to_string())?;
    recorder.mark(Mark::End(op));
    let events = recorder.take_events();
    let tree = dump(&fs).map_err(|error| error.to_string())?;
    Ok((events, tree))
}
