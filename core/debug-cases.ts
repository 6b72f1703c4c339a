/** What a purchase is paid by; which interfaces the marketplace debugs depends on it. */
export type Charging = 'period' | 'one-time' | 'pay-per-use' | 'package';

/** One interface that must have a saved debugging call before a product can be published. */
export type DebugCase = 'new' | 'query' | 'refresh' | 'freeze' | 'unfreeze' | 'release' | 'expire';

const wholeLife = ['new', 'query', 'refresh', 'freeze', 'unfreeze', 'release'] as const;

/**
 * By family and charging (saas-v2.md §1.1). The old interface has one for expiry beside; its own
 * calls are another family's, and without a family here there is nothing to rehearse.
 */
const debugCases: Readonly<Record<string, Readonly<Record<Charging, readonly DebugCase[]>>>> = {
  'saas-v2': {
    period: wholeLife,
    'one-time': ['new', 'query', 'release'],
    'pay-per-use': wholeLife,
    package: wholeLife,
  },
  'saas-v1': {
    period: ['new', 'query', 'refresh', 'expire', 'freeze', 'unfreeze', 'release'],
    'one-time': ['new', 'query', 'release'],
    'pay-per-use': ['new', 'query', 'freeze', 'unfreeze', 'release'],
    package: ['new', 'query', 'freeze', 'unfreeze', 'release'],
  },
};

/** @returns undefined for a family that nothing is known of */
export function debugCasesOf(family: string, charging: Charging): readonly DebugCase[] | undefined {
  return debugCases[family]?.[charging];
}
