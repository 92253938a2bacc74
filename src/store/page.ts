/** A page of a list, newest first: what comes after the last item of the page before. */
export type PageRequest = { limit: number; after: PagePosition | null };

export type PagePosition = { createdAt: Date; id: string };
