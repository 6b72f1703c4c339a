export type Language = 'en' | 'zh';

/** The `lang` attribute of a page. */
export const languageTags: Record<Language, string> = { en: 'en', zh: 'zh-CN' };

/**
 * @param wanted from the address, which wins
 * @param acceptLanguage the header as it came, like `zh-CN,zh;q=0.9,en;q=0.8`
 */
export function chooseLanguage(
  wanted: string | undefined,
  acceptLanguage: string | undefined,
): Language {
  if (wanted === 'en' || wanted === 'zh') return wanted;
  const ranked = (acceptLanguage ?? '')
    .split(',')
    .map((part) => {
      const [tag = '', ...parameters] = part.trim().toLowerCase().split(';');
      const q = parameters
        .find((p) => p.trim().startsWith('q='))
        ?.trim()
        .slice(2);
      return { language: tag.split('-')[0], weight: q === undefined ? 1 : Number(q) || 0 };
    })
    .filter(({ language, weight }) => weight > 0 && (language === 'en' || language === 'zh'))
    .toSorted((a, b) => b.weight - a.weight);
  return ranked[0]?.language === 'zh' ? 'zh' : 'en';
}
