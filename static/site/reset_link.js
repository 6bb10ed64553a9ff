// The link's secret stands behind the #, which browsers send to nobody. It goes into the form, and out of the address.
const given = new URLSearchParams(location.hash.slice(1));
for (const name of ["uid", "token"]) {
  const field = document.querySelector(`input[name=${name}]`);
  if (field && given.has(name)) field.value = given.get(name);
}
if (given.has("token")) history.replaceState(null, "", location.pathname);
