/** Further tokens of one grant, as definitions list them: one in the same answer, and one that is asked for with the first. */
export const user = {
  name: "user",
  access_token: "/authed_user/access_token",
  refresh_token: "/authed_user/refresh_token",
  expires: { pointer: "/authed_user/expires_in" },
};

export const deep = {
  name: "deep",
  exchange: { fields: { subject_token: "{access_token}", subject_token_type: "t", audience: "deep" } },
};
