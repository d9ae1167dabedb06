//! 粘包: two messages arrive as one, and one arrives as many.

use crate::stage::{Stage, Taught};

pub(crate) fn teach(stage: &mut Stage) -> Taught {
    stage.scene("Small sends are glued together", "小消息粘在一起")?;
    Ok(())
}
