//! What is read from the saved registers of a local APIC (Intel SDM volume 3, chapter 11; offsets of table 11-1).

use kvm_bindings::kvm_lapic_state;

use crate::spec::lapic as reg;

/// The vectors whose bit is set in one of the 256-bit registers, in rising order.
pub(crate) fn vectors(
    lapic: &kvm_lapic_state,
    first: usize,
) -> impl DoubleEndedIterator<Item = u8> {
    (0..=u8::MAX).filter(move |vector| {
        let at = usize::from(*vector);
        let byte = lapic.regs[first + at / 32 * 16 + at % 32 / 8];
        byte.cast_unsigned() & (1 << (at % 8)) != 0
    })
}

/// Whether the timer is in TSC deadline mode and not masked (11.5.4).
pub(crate) fn timer_waits(lapic: &kvm_lapic_state) -> bool {
    let byte = |at: usize| lapic.regs[reg::LVT_TIMER + at].cast_unsigned();
    let timer = u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]);
    (timer >> 17) & 3 == 2 && timer & (1 << 16) == 0
}

/// Brings the processor's priority up to date, which follows from the task's and the interrupts in service
/// (11.8.3.1). KVM does so when it needs it, and after a restore from what was in service before: without this
/// two machines in one state would not have equal bytes.
pub(crate) fn settle_priority(lapic: &mut kvm_lapic_state) {
    let task = lapic.regs[reg::TASK_PRIORITY].cast_unsigned();
    let in_service = vectors(lapic, reg::IN_SERVICE).next_back().unwrap_or(0);
    let class = |priority: u8| priority & 0xf0;
    let priority = if class(task) >= class(in_service) {
        task
    } else {
        class(in_service)
    };
    lapic.regs[reg::PROCESSOR_PRIORITY] = priority.cast_signed();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(task: u8, in_service: &[u8]) -> u8 {
        let mut lapic = kvm_lapic_state::default();
        // What was derived before must not matter.
        lapic.regs[reg::PROCESSOR_PRIORITY] = 0x77;
        lapic.regs[reg::TASK_PRIORITY] = task.cast_signed();
        for vector in in_service {
            let at = usize::from(*vector);
            let byte = &mut lapic.regs[reg::IN_SERVICE + at / 32 * 16 + at % 32 / 8];
            *byte = (byte.cast_unsigned() | 1 << (at % 8)).cast_signed();
        }
        settle_priority(&mut lapic);
        lapic.regs[reg::PROCESSOR_PRIORITY].cast_unsigned()
    }

    #[test]
    fn the_higher_class_counts() {
        assert_eq!(priority(0, &[]), 0);
        assert_eq!(priority(0x25, &[]), 0x25);
        assert_eq!(priority(0, &[0x31, 0xec]), 0xe0);
        assert_eq!(priority(0x25, &[0x31]), 0x30);
        assert_eq!(priority(0x35, &[0x31]), 0x35);
    }
}
