export const galleriesView = { title: () => "galleries", render() {} };
