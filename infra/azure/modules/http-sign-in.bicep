// HTTP callers sign in with Entra before a request reaches the app, which then asks for their app role. Without this module the app
// has function keys as its only lock.

@description('Name of the function app.')
param functionAppName string

@description('Client id of the Entra application that callers sign in to.')
param authClientId string

resource app 'Microsoft.Web/sites@2025-03-01' existing = {
  name: functionAppName
}

resource authentication 'Microsoft.Web/sites/config@2025-03-01' = {
  // checkov:skip=CKV_AZURE_13:The rule reads an older form of these very settings: platform.enabled is true below.
  // checkov:skip=CKV_AZURE_63:Flex Consumption has no web server logs of its own; requests are in Application Insights.
  // checkov:skip=CKV_AZURE_65:Flex Consumption has no web server logs of its own; requests are in Application Insights.
  // checkov:skip=CKV_AZURE_66:Flex Consumption has no web server logs of its own; requests are in Application Insights.
  // checkov:skip=CKV_AZURE_80:The app runs Python, no .NET Framework.
  // checkov:skip=CKV_AZURE_88:Flex Consumption takes its package from a blob and mounts no file share.
  // checkov:skip=CKV_AZURE_222:The rule is about the site and is answered there; this is one of its settings.
  parent: app
  name: 'authsettingsV2'
  properties: {
    platform: {
      enabled: true
    }
    globalValidation: {
      requireAuthentication: true
      unauthenticatedClientAction: 'Return401'
      excludedPaths: [
        // Probes have no identity, and it tells no more than that the store answers.
        '/api/health'
        // A Databricks notification signs in with a name and a password, which the app checks.
        '/api/webhooks/databricks'
      ]
    }
    httpSettings: {
      requireHttps: true
    }
    identityProviders: {
      azureActiveDirectory: {
        enabled: true
        registration: {
          clientId: authClientId
          openIdIssuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
          // A browser's sign-in needs a secret of the application; the app's identity stands in for it (register-application).
          clientSecretSettingName: 'OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID' // pragma: allowlist secret
        }
        validation: {
          allowedAudiences: [
            authClientId
            'api://${authClientId}'
          ]
          // Any application of the tenant that holds one of the app roles; which role opens which path is the app's to say.
          defaultAuthorizationPolicy: {
            allowedPrincipals: {}
          }
        }
      }
    }
    login: {
      // Programs have tokens of their own, and a browser's sign-in is in its cookie: no token has to be kept.
      tokenStore: {
        enabled: false
      }
    }
  }
}
