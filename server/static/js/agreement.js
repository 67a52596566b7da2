export const agreementView = { title: () => "agreement", render() {} };
