//! Moves between log directories (AlterReplicaLogDirs).

use vltava_storage::Copied;
use vltava_types::{Offset, TimestampMs};

use super::{Outcome, Run};
use crate::model::Allowed;

impl Run {
    /// Begins a move, or goes on with one, gives it up, or ends it.
    pub(super) fn move_on(&mut self, index: usize) -> Outcome {
        let (driven, random) = (&mut self.logs[index], &mut self.random);
        let target = &self.log_dirs[1 - driven.home];
        let log = driven.log.as_mut().expect("a log");
        let Some(mut future) = driven.future.take() else {
            self.story.lines.push(format!("{}: a move begins", driven.name));
            driven.future = Some(target.create_future(&driven.name, log)?);
            return Ok(());
        };
        let max_bytes = [1, 500, 5000][random.below(3) as usize];
        match random.below(8) {
            0 => {
                self.story.lines.push(format!("{}: the move is given up", driven.name));
                return target.remove_future(future);
            }
            1..4 => {
                self.story.lines.push(format!("{}: the move goes on", driven.name));
                for _ in 0..1 + random.below(4) {
                    future.copy(&log.reader(), log.truncation_count(), max_bytes)?;
                }
                driven.future = Some(future);
                return Ok(());
            }
            _ => {}
        }
        self.story.lines.push(format!("{}: the move ends", driven.name));
        while future.copy(&log.reader(), log.truncation_count(), max_bytes)? != Copied::Everything {}
        // Whichever of the two logs is found after a crash.
        driven.under_way = Some(Allowed::after(&driven.model));
        let source = &self.log_dirs[driven.home];
        let committed = Offset(driven.model.durable_end);
        let moved = target.take_over(future, &driven.name, log, source.directory_id(), committed)?;
        let old = std::mem::replace(log, moved);
        driven.home = 1 - driven.home;
        let model = &mut driven.model;
        (model.durable_end, model.durable_start) = (model.end, model.start);
        model.checkpointed_high_watermark = committed.value();
        driven.under_way = Some(Allowed::after(model));
        source.delete(old, TimestampMs(0))?;
        target.forget_replaced(&driven.name)
    }
}
