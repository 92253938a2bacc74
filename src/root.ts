/** The project's own folder, from the sources and from the bundle in `build/` alike: both lie one level below it. */
export const projectRoot = new URL("../", import.meta.url);
